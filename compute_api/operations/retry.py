"""A server that could not be made on one host goes to another one, as long as nothing of it runs."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from compute_api.hosts import hosts
from compute_api.models import Host, Operation, Server
from compute_api.operations import operations
from compute_api.scheduler import claims, scheduling
from compute_api.states import SPAWN, UNSHELVE
from network_api.resources import ports

MAX_HOSTS = 3
"""On so many hosts a server is tried."""
RESCHEDULABLE = frozenset({SPAWN.task, UNSHELVE.task})
"""Tasks that make a machine where there was none, so that any host may do them."""


def reschedule_after_failure(
    session: Session, now: datetime, server: Server, operation: Operation, error: str
) -> str | None:
    """A host has failed to make the server. None when another one is to try now, else what its fault is to say."""
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
    """Give the server, its ports and what is to be done to another host; False when none has room.

    The old operation is over. What the old host has of the server it removes when it compares: it is not its own.
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
    state = "superseded" if operation.state == "queued" else "failed"
    operations.close(session, now, operation.id, state, reason)
    operations.queue(session, now, server, operation.task, operation.request_id, operation.arguments)
    return True
