"""What queues and exchanges are called, and who may use them.

    control plane ── sixstack.host.NAME (quorum) ──► host NAME     what is to be done: a Celery task, an operation's id
    control plane ── sixstack.ask.NAME ───────────► host NAME     questions about machines
    control plane ── sixstack.answers.NAME ───────► host NAME     answers to what the host has asked
    host NAME ── exchange sixstack.up.NAME ──┬────► sixstack.conductor         requests and reports
                                             ├────► sixstack.heartbeats   that it is alive
                                             └────► sixstack.up           answers to questions, for the API that asked

A host may write to its own exchange only, so the exchange that a message came by says who sent it.
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
"""What a host may be called: a DNS name."""


def task_queue(host: str) -> str:
    """The quorum queue of what the host is to do."""
    return f"sixstack.host.{host}"


def request_queue(host: str) -> str:
    """The queue of what the host is asked."""
    return f"sixstack.ask.{host}"


def reply_queue(host: str) -> str:
    """The queue of what the host gets to know."""
    return f"sixstack.answers.{host}"


def host_exchange(host: str) -> str:
    """The exchange of all that the host says."""
    return f"{REPLY_EXCHANGE}.{host}"


def sender(exchange: str) -> str | None:
    """The host whose exchange it is; None when it is none's."""
    prefix = f"{REPLY_EXCHANGE}."
    return exchange.removeprefix(prefix) if exchange.startswith(prefix) else None


def broker_user(host: str) -> str:
    """The host's user at the broker."""
    return f"sixstack-host-{host}"


def permissions(host: str) -> dict[str, str]:
    """What that user may do, as RabbitMQ's management API takes it."""
    name = re.escape(host)
    return {
        "configure": "^$",
        "write": rf"^sixstack\.up\.{name}$",
        "read": rf"^sixstack\.(host|ask|answers)\.{name}$",
    }
