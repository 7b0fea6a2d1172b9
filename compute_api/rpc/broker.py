"""RabbitMQ connections and declarations of queues and exchanges."""

import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kombu import Connection, Exchange, Queue, compression
from kombu.exceptions import OperationalError

from app.core import errors
from compute_api.rpc import topology


def _reject_compression(_body: Any) -> Any:
    raise ValueError("Compressed messages are not accepted.")


# No sender compresses; refusing compression prevents decompression bombs from hosts.
for _kind in compression.encoders():
    compression.register(_reject_compression, _reject_compression, _kind)

HEARTBEAT_SECONDS = 20
TIMEOUT_SECONDS = 10.0


def connection_options(url: str, authority: str | None, *, confirmed: bool = True) -> dict[str, Any]:
    """Return connection options: publisher confirms, timeouts, and TLS for amqps:// URLs.

    With `confirmed` False the broker does not acknowledge messages. `authority` is the path of the certificate
    authority's file; None trusts the system's own.
    """
    timeouts = {"connect_timeout": TIMEOUT_SECONDS, "write_timeout": TIMEOUT_SECONDS}
    made: dict[str, Any] = {"transport_options": {"confirm_publish": confirmed, **timeouts}}
    if url.startswith("amqps:"):
        made["ssl"] = {"ca_certs": authority or ssl.get_default_verify_paths().cafile, "cert_reqs": ssl.CERT_REQUIRED}
    return made


def connection(
    url: str, authority: str | None = None, *, heartbeat: int = HEARTBEAT_SECONDS, confirmed: bool = True
) -> Connection:
    """Return a connection that connects on first use."""
    return Connection(url, heartbeat=heartbeat, **connection_options(url, authority, confirmed=confirmed))


def connect_with_retries(connecting: Connection, lost: Callable[[Exception, float], None], **more: Any) -> Connection:
    """Connect, retrying for ever: every second at first, later every five. `lost` is called with each error and the
    seconds until the next attempt."""
    return connecting.ensure_connection(lost, None, interval_start=1, interval_step=1, interval_max=5, **more)


def conductor_queue() -> Queue:
    """Queue of requests and reports of hosts to the conductor."""
    return Queue(topology.CONDUCTOR, Exchange(""), topology.CONDUCTOR, durable=True)


def heartbeat_queue() -> Queue:
    """Queue of heartbeats. They expire with the interval after which a host counts as down."""
    return Queue(
        topology.HEARTBEATS,
        Exchange(""),
        topology.HEARTBEATS,
        durable=True,
        message_ttl=topology.HEARTBEAT_TTL_MS / 1000,
    )


def reply_exchange() -> Exchange:
    """Exchange that receives the replies of all hosts."""
    return Exchange(topology.REPLY_EXCHANGE, type="topic", durable=True)


def declare(channel: Any) -> None:
    """Declare what all hosts share. Idempotent."""
    reply_exchange()(channel).declare()
    conductor_queue()(channel).declare()
    heartbeat_queue()(channel).declare()


def declare_host(channel: Any, host: str) -> None:
    """Declare the host's queues and its exchange with its bindings. Idempotent."""
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
    """Return the error that users see while the broker is unreachable."""
    return errors.Unavailable(f"The message broker cannot be reached just now ({type(error).__name__}). Try again.")


CONNECTION_ERRORS = (OperationalError, ConnectionError, OSError)
"""Exceptions of an unreachable broker."""
