"""Operations: tasks for hosts. Queued with the server's row, claimed once, completed against the server's
generation."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from app.db.database import after_commit
from compute_api.hosts import liveness
from compute_api.models import Heartbeat, Operation, Server, ServerAction
from compute_api.states import OPEN_OPERATION_STATES, OperationState

Notify = Callable[[str, Sequence[int]], None]
"""Notifies a host, after the commit, of queued operations. Notifications may be lost: agents poll as well."""


MAX_ATTEMPTS = 5
STALE_AFTER = timedelta(seconds=5)
"""A host is notified again of an operation that stays queued for so long."""


def queue(
    session: Session,
    now: datetime,
    server: Server,
    task: str,
    request_id: str,
    arguments: dict[str, Any],
    *,
    host: str | None = None,
) -> Operation:
    """Queue an operation for the server's host or for `host`. `session.info["notify"]` is called after the commit."""
    host = host or server.host
    assert host is not None
    operation = Operation(
        server_id=server.id,
        host=host,
        task=task,
        generation=server.generation,
        state=OperationState.QUEUED,
        request_id=request_id,
        arguments=arguments,
        created_at=now,
    )
    session.add(operation)
    notify: Notify | None = session.info.get("notify")
    if notify is not None:
        after_commit(session, lambda: notify(operation.host, [operation.id]))
    return operation


def begin_action(session: Session, now: datetime, server: Server, name: str, request_id: str, user_id: str) -> None:
    """Record the begin of an instance action."""
    session.add(
        ServerAction(
            server_id=server.id,
            request_id=request_id,
            action=name,
            user_id=user_id,
            project_id=server.project_id,
            started_at=now,
            updated_at=now,
            host=server.host,
        )
    )


def end_action(session: Session, now: datetime, server_id: str, request_id: str, message: str | None = None) -> None:
    """Record the end of an instance action; a message means that it failed."""
    session.execute(
        update(ServerAction)
        .where(ServerAction.server_id == server_id, ServerAction.request_id == request_id)
        .values(finished_at=now, updated_at=now, message=message)
        .execution_options(synchronize_session=False)
    )


def list_queued(session: Session, host: str) -> list[int]:
    """Return the ids of the host's queued operations, oldest first."""
    query = (
        select(Operation.id)
        .where(Operation.host == host, Operation.state == OperationState.QUEUED)
        .order_by(Operation.id)
    )
    return list(session.scalars(query))


def take_stale_queued(session: Session, now: datetime) -> dict[str, list[int]]:
    """Return queued operations whose hosts were last notified over 5 seconds ago, by host, oldest first.

    Marks them as notified, so that only one of several processes gets them. Hosts that are down are left out: they poll
    when they return.
    """
    alive = select(Heartbeat.host).where(Heartbeat.last_seen >= liveness.down_before(session, now))
    waits = (
        update(Operation)
        .where(
            Operation.state == OperationState.QUEUED,
            func.coalesce(Operation.nudged_at, Operation.created_at) <= now - STALE_AFTER,
            Operation.host.in_(alive),
        )
        .values(nudged_at=now)
        .returning(Operation.host, Operation.id)
        .execution_options(synchronize_session=False)
    )
    stale: dict[str, list[int]] = {}
    for host, operation_id in sorted(session.execute(waits).all(), key=lambda row: row.id):
        stale.setdefault(host, []).append(operation_id)
    return stale


def claim(session: Session, now: datetime, operation_id: int, host: str) -> Operation | None:
    """Claim an operation of the host: None when it is not queued, or while another one of its server is running."""
    other = aliased(Operation)
    busy = (
        select(other.id)
        .where(other.server_id == Operation.server_id, other.state == OperationState.RUNNING, other.id != Operation.id)
        .exists()
    )
    return session.scalar(
        update(Operation)
        .where(Operation.id == operation_id, Operation.host == host, Operation.state == OperationState.QUEUED, ~busy)
        .values(state=OperationState.RUNNING, started_at=now, attempts=Operation.attempts + 1)
        .returning(Operation)
        .execution_options(synchronize_session=False)
    )


def close(session: Session, now: datetime, operation_id: int, state: OperationState, error: str | None = None) -> None:
    """Set an operation's final state: done, failed or superseded."""
    session.execute(
        update(Operation)
        .where(Operation.id == operation_id)
        .values(state=state, finished_at=now, error=error)
        .execution_options(synchronize_session=False)
    )


def list_for_request(session: Session, server_id: str, request_id: str) -> list[Operation]:
    """Return the operations of a request, latest first. A rescheduled build has several."""
    query = (
        select(Operation)
        .where(Operation.server_id == server_id, Operation.request_id == request_id)
        .order_by(Operation.id.desc())
    )
    return list(session.scalars(query))


def requeue_running(session: Session, host: str) -> int:
    """Queue the host's running operations again after a restart of its agent; operations are idempotent. Returns how
    many."""
    result = session.execute(
        update(Operation)
        .where(Operation.host == host, Operation.state == OperationState.RUNNING)
        .values(state=OperationState.QUEUED)
        .returning(Operation.id)
        .execution_options(synchronize_session=False)
    )
    return len(result.all())


def list_running(session: Session, host: str | None) -> list[Operation]:
    """Return the running operations of the host, or with None of all hosts."""
    query = select(Operation).where(Operation.state == OperationState.RUNNING).order_by(Operation.id)
    return list(session.scalars(query if host is None else query.where(Operation.host == host)))


def has_open(session: Session, host: str, server_id: str) -> bool:
    """Return whether the host has a queued or running operation for the server."""
    query = select(Operation.id).where(
        Operation.host == host, Operation.server_id == server_id, Operation.state.in_(OPEN_OPERATION_STATES)
    )
    return session.scalar(query.limit(1)) is not None


def list_interrupted_servers(session: Session, host: str, tasks: Sequence[str]) -> list[str]:
    """Return servers with a queued operation of these tasks behind a running one, which it interrupts."""
    other = aliased(Operation)
    query = (
        select(Operation.server_id)
        .join(other, other.server_id == Operation.server_id)
        .where(
            Operation.host == host,
            Operation.state == OperationState.QUEUED,
            Operation.task.in_(tasks),
            other.state == OperationState.RUNNING,
        )
    )
    return list(session.scalars(query.distinct()))


def find_running(session: Session, operation_id: int, host: str) -> Operation | None:
    """Return the operation if it is running on the host."""
    query = select(Operation).where(
        Operation.id == operation_id, Operation.host == host, Operation.state == OperationState.RUNNING
    )
    return session.scalar(query)


def release(session: Session, operation_id: int, host: str) -> None:
    """Queue a running operation again. After MAX_ATTEMPTS it stays running until the reaper fails it."""
    session.execute(
        update(Operation)
        .where(
            Operation.id == operation_id,
            Operation.host == host,
            Operation.state == OperationState.RUNNING,
            Operation.attempts < MAX_ATTEMPTS,
        )
        .values(state=OperationState.QUEUED)
        .execution_options(synchronize_session=False)
    )
