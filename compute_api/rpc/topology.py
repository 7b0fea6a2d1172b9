"""Broker topology: names of queues and exchanges, and permissions of hosts.

    control plane ── sixstack.host.NAME (quorum) ──► host NAME     tasks: a Celery task with an operation's id
    control plane ── sixstack.ask.NAME ───────────► host NAME     requests about machines
    control plane ── sixstack.answers.NAME ───────► host NAME     replies to the host's requests
    host NAME ── exchange sixstack.up.NAME ──┬────► sixstack.conductor    requests and reports
                                             ├────► sixstack.heartbeats   heartbeats
                                             └────► sixstack.up           replies to requests of the API

A host may write to its own exchange only, so the exchange of a message identifies its sender.
"""

import re

CONDUCTOR = "sixstack.conductor"
HEARTBEATS = "sixstack.heartbeats"
REPLY_EXCHANGE = "sixstack.up"
TASK = "sixstack.carry_out"

KEY_CONDUCTOR = "conductor"
KEY_HEARTBEAT = "heartbeat"
KEY_REPLY = "answer"

HEARTBEAT_TTL_MS = 30_000
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
"""Valid host names: a DNS label or name."""


def task_queue(host: str) -> str:
    """Return the name of the host's task queue, a quorum queue."""
    return f"sixstack.host.{host}"


def request_queue(host: str) -> str:
    """Return the name of the queue of requests to the host."""
    return f"sixstack.ask.{host}"


def reply_queue(host: str) -> str:
    """Return the name of the queue of replies to the host."""
    return f"sixstack.answers.{host}"


def host_exchange(host: str) -> str:
    """Return the name of the exchange that the host publishes to."""
    return f"{REPLY_EXCHANGE}.{host}"


def sender(exchange: str) -> str | None:
    """Return the host that publishes to the exchange; None for another exchange."""
    prefix = f"{REPLY_EXCHANGE}."
    return exchange.removeprefix(prefix) if exchange.startswith(prefix) else None


def broker_user(host: str) -> str:
    """Return the host's user name at the broker."""
    return f"sixstack-host-{host}"


def permissions(host: str) -> dict[str, str]:
    """Return that user's permissions in the form of RabbitMQ's management API."""
    name = re.escape(host)
    return {
        "configure": "^$",
        "write": rf"^sixstack\.up\.{name}$",
        "read": rf"^sixstack\.(host|ask|answers)\.{name}$",
    }
