"""Connections to RabbitMQ, and what is declared there."""

import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kombu import Connection, Exchange, Queue, compression
from kombu.exceptions import OperationalError

from app.core import errors
from compute_api.rpc import topology


def _reject_compression(_body: Any) -> Any:
    raise ValueError("Messages of this cloud are not compressed.")


# Nobody compresses messages, and what hosts send must not grow when it is read.
for _kind in compression.encoders():
    compression.register(_reject_compression, _reject_compression, _kind)

HEARTBEAT_SECONDS = 20
TIMEOUT_SECONDS = 10.0


def connection_options(url: str, authority: str | None, *, confirmed: bool = True) -> dict[str, Any]:
    """How kombu and Celery connect: confirmed publishing, no waiting for ever, and TLS for amqps:// URLs.

    What is not `confirmed` is sent and forgotten. `authority` is the path of the certificate authority's file; the
    system's own are trusted when it is None.
    """
    timeouts = {"connect_timeout": TIMEOUT_SECONDS, "write_timeout": TIMEOUT_SECONDS}
    made: dict[str, Any] = {"transport_options": {"confirm_publish": confirmed, **timeouts}}
    if url.startswith("amqps:"):
        made["ssl"] = {"ca_certs": authority or ssl.get_default_verify_paths().cafile, "cert_reqs": ssl.CERT_REQUIRED}
    return made


def connection(
    url: str, authority: str | None = None, *, heartbeat: int = HEARTBEAT_SECONDS, confirmed: bool = True
) -> Connection:
    """A connection that is made when it is first needed."""
    return Connection(url, heartbeat=heartbeat, **connection_options(url, authority, confirmed=confirmed))


def connect_with_retries(connecting: Connection, lost: Callable[[Exception, float], None], **more: Any) -> Connection:
    """The connection, once the broker takes it, for however long that takes: tried every second at first, then every
    five. `lost` is told why not, and after how many seconds it is tried again."""
    return connecting.ensure_connection(lost, None, interval_start=1, interval_step=1, interval_max=5, **more)


def conductor_queue() -> Queue:
    """What hosts ask of and report to the control plane."""
    return Queue(topology.CONDUCTOR, Exchange(""), topology.CONDUCTOR, durable=True)


def heartbeat_queue() -> Queue:
    """That hosts are alive; what is older than the silence after which they count as down says nothing."""
    return Queue(
        topology.HEARTBEATS,
        Exchange(""),
        topology.HEARTBEATS,
        durable=True,
        message_ttl=topology.HEARTBEAT_TTL_MS / 1000,
    )


def reply_exchange() -> Exchange:
    """Where the answers of all hosts come together."""
    return Exchange(topology.REPLY_EXCHANGE, type="topic", durable=True)


def declare(channel: Any) -> None:
    """What all hosts share. May be done again."""
    reply_exchange()(channel).declare()
    conductor_queue()(channel).declare()
    heartbeat_queue()(channel).declare()


def declare_host(channel: Any, host: str) -> None:
    """The host's queues, its exchange, and where that leads. May be done again."""
    declare(channel)
    own = Exchange(topology.host_exchange(host), type="topic", durable=True)(channel)
    own.declare()
    Queue(topology.task_queue(host), durable=True, queue_arguments={"x-queue-type": "quorum"})(channel).queue_declare()
    for name in (topology.request_queue(host), topology.reply_queue(host)):
        Queue(name, durable=True, message_ttl=60)(channel).queue_declare()
    for queue, key in ((topology.CONDUCTOR, topology.KEY_CONDUCTOR), (topology.HEARTBEATS, topology.KEY_HEARTBEAT)):
        Queue(queue)(channel).bind_to(own, key)
    reply_exchange()(channel).bind_to(own, routing_key=f"{topology.KEY_REPLY}.#")


def remove_host(channel: Any, host: str) -> None:
    """Nothing of the host is left at the broker but its user."""
    for queue in (topology.task_queue(host), topology.request_queue(host), topology.reply_queue(host)):
        with suppress(channel.connection.channel_errors):
            channel.queue_delete(queue)
    channel.exchange_delete(topology.host_exchange(host))


def unavailable(error: Exception) -> errors.Unavailable:
    """The error that users see when the broker cannot be reached."""
    return errors.Unavailable(f"The message broker cannot be reached just now ({type(error).__name__}). Try again.")


CONNECTION_ERRORS = (OperationalError, ConnectionError, OSError)
"""What a broker that is not there looks like."""
