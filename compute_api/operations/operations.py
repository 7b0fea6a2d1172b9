"""Operations: what hosts have to do. Written with the server's row; claimed once; finished against the generation."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from app.db.database import after_commit
from compute_api.hosts import liveness
from compute_api.models import Heartbeat, Operation, Server, ServerAction

Notify = Callable[[str, Sequence[int]], None]
"""Tells the agents, after the commit, that there is something to do. May be lost: they also look by themselves."""


MAX_ATTEMPTS = 5
STALE_AFTER = timedelta(seconds=5)
"""A host is told again of an operation that it has not begun for so long."""


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
    """Put down what is to be done for a server, by its host or by another one. `session.info["notify"]` is told after
    the commit."""
    host = host or server.host
    assert host is not None
    operation = Operation(
        server_id=server.id,
        host=host,
        task=task,
        generation=server.generation,
        state="queued",
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
    """Write down that somebody does something to the server."""
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
    """Write down how it went; a message means that it went wrong."""
    session.execute(
        update(ServerAction)
        .where(ServerAction.server_id == server_id, ServerAction.request_id == request_id)
        .values(finished_at=now, updated_at=now, message=message)
        .execution_options(synchronize_session=False)
    )


def list_queued(session: Session, host: str) -> list[int]:
    """Operations of the host that nobody has begun, oldest first."""
    query = select(Operation.id).where(Operation.host == host, Operation.state == "queued").order_by(Operation.id)
    return list(session.scalars(query))


def take_stale_queued(session: Session, now: datetime) -> dict[str, list[int]]:
    """Operations that have waited for 5 seconds since their hosts were last told of them, by host, oldest first.

    From then on they count as told again, so that of several processes that ask only one is answered. A host that is
    silent is told nothing: when it comes back it looks by itself.
    """
    alive = select(Heartbeat.host).where(Heartbeat.last_seen >= liveness.down_before(session, now))
    waits = (
        update(Operation)
        .where(
            Operation.state == "queued",
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
    """Begin an operation of the host, once: None when somebody has, or while another one of its server is under way."""
    other = aliased(Operation)
    busy = (
        select(other.id)
        .where(other.server_id == Operation.server_id, other.state == "running", other.id != Operation.id)
        .exists()
    )
    return session.scalar(
        update(Operation)
        .where(Operation.id == operation_id, Operation.host == host, Operation.state == "queued", ~busy)
        .values(state="running", started_at=now, attempts=Operation.attempts + 1)
        .returning(Operation)
        .execution_options(synchronize_session=False)
    )


def close(session: Session, now: datetime, operation_id: int, state: str, error: str | None = None) -> None:
    """The operation is over: done, failed, or superseded by a later one; an error says why."""
    session.execute(
        update(Operation)
        .where(Operation.id == operation_id)
        .values(state=state, finished_at=now, error=error)
        .execution_options(synchronize_session=False)
    )


def list_for_request(session: Session, server_id: str, request_id: str) -> list[Operation]:
    """What hosts were to do for a request, latest first: more than one where it was given to another host."""
    query = (
        select(Operation)
        .where(Operation.server_id == server_id, Operation.request_id == request_id)
        .order_by(Operation.id.desc())
    )
    return list(session.scalars(query))


def requeue_running(session: Session, host: str) -> int:
    """What an agent that died had begun is to be done again; carrying it out twice is harmless."""
    result = session.execute(
        update(Operation)
        .where(Operation.host == host, Operation.state == "running")
        .values(state="queued")
        .returning(Operation.id)
        .execution_options(synchronize_session=False)
    )
    return len(result.all())


def list_running(session: Session, host: str | None) -> list[Operation]:
    """What the host is busy with, or every host."""
    query = select(Operation).where(Operation.state == "running").order_by(Operation.id)
    return list(session.scalars(query if host is None else query.where(Operation.host == host)))


def has_open(session: Session, host: str, server_id: str) -> bool:
    """Whether the host has something to do for the server, be it its own or one that is on its way."""
    query = select(Operation.id).where(
        Operation.host == host, Operation.server_id == server_id, Operation.state.in_(("queued", "running"))
    )
    return session.scalar(query.limit(1)) is not None


def list_interrupted_servers(session: Session, host: str, tasks: Sequence[str]) -> list[str]:
    """Servers of the host for which one of the tasks waits behind another one that is under way."""
    other = aliased(Operation)
    query = (
        select(Operation.server_id)
        .join(other, other.server_id == Operation.server_id)
        .where(Operation.host == host, Operation.state == "queued", Operation.task.in_(tasks), other.state == "running")
    )
    return list(session.scalars(query.distinct()))


def find_running(session: Session, operation_id: int, host: str) -> Operation | None:
    """The operation, if the host has begun it and has not said yet how it went."""
    query = select(Operation).where(Operation.id == operation_id, Operation.host == host, Operation.state == "running")
    return session.scalar(query)


def release(session: Session, operation_id: int, host: str) -> None:
    """To be begun again. One that is begun too often stays as it is, until it is overdue."""
    session.execute(
        update(Operation)
        .where(
            Operation.id == operation_id,
            Operation.host == host,
            Operation.state == "running",
            Operation.attempts < MAX_ATTEMPTS,
        )
        .values(state="queued")
        .execution_options(synchronize_session=False)
    )
