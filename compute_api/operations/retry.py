"""Retry of failed builds: reschedules a server to another host as long as no machine of it exists."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from compute_api.hosts import hosts
from compute_api.models import Host, Operation, Server
from compute_api.operations import operations
from compute_api.scheduler import claims, scheduling
from compute_api.states import SPAWN, UNSHELVE, OperationState
from network_api.resources import ports

MAX_HOSTS = 3
"""Hosts on which a build is tried."""
RESCHEDULABLE = frozenset({SPAWN.task, UNSHELVE.task})
"""Tasks that build a machine where there is none, so that any host may run them."""


def reschedule_after_failure(
    session: Session, now: datetime, server: Server, operation: Operation, error: str
) -> str | None:
    """Reschedule a failed build. Returns None when another host tries now, else the message for the server's fault."""
    assert server.host is not None
    others = select(Host.seq).where(Host.name != server.host)
    if scheduling.is_pinned(server) or session.scalar(others.limit(1)) is None:
        return error
    refused = scheduling.add_failed_host(server, server.host, error)
    if len(refused) >= MAX_HOSTS:
        reasons = "; ".join(f"{host}: {why}" for host, why in refused)
        return (
            "Exceeded maximum number of retries. Exhausted all hosts available for retrying build failures for "
            f"instance {server.id}. {reasons}"
        )
    if reschedule(session, now, server, operation, error):
        return None
    return scheduling.explain_no_host(session, now, server, server.pinned_zone)


def reschedule(session: Session, now: datetime, server: Server, operation: Operation, reason: str) -> bool:
    """Reschedule the server, its ports and the operation to another host; returns False when no host has room.

    The old operation is closed. Reconciliation on the old host removes what is left of the machine.
    """
    left, holds = server.host, claims.held_resources(server)
    assert left is not None
    if scheduling.claim_host(session, now, server, server.pinned_zone) is None:
        return False
    hosts.release(session, left, **holds)
    server.generation += 1
    server.updated_at = now
    session.flush()
    ports.rebind(session, server.id, server.host)
    state = OperationState.SUPERSEDED if operation.state == OperationState.QUEUED else OperationState.FAILED
    operations.close(session, now, operation.id, state, reason)
    operations.queue(session, now, server, operation.task, operation.request_id, operation.arguments)
    return True
