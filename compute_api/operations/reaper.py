"""Reaps operations past their deadline or queued on hosts that are down.

Any number of processes may reap at the same time, as often as they like.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from app.db.database import Database, is_unreachable
from compute_api.hosts import liveness
from compute_api.models import Heartbeat, Host, Operation, Server
from compute_api.operations import completion, operations, retry
from compute_api.operations.operations import Notify
from compute_api.rpc.messages import Outcome
from compute_api.states import DELETE, OPEN_OPERATION_STATES, OperationState
from image_api.stores.file import Store

log = logging.getLogger(__name__)

AGENT_GRACE = timedelta(seconds=30)
"""Time after a deadline in which only the host's own agent fails an operation, as it can also interrupt it."""


def reap(
    database: Database, now: datetime, grace_seconds: float, *, store: Store | None = None, notify: Notify | None = None
) -> int:
    """Reap the operations of all hosts; returns how many were changed.

    Operations past their deadline fail. On hosts that are down, queued builds are rescheduled where possible, deletes
    are done, and the rest fails at its deadline. While heartbeats are not received, and for a minute after that, no
    deadline counts: outcomes may wait to be reported.
    """
    first = now - AGENT_GRACE
    with database.reading() as session:
        running = operations.list_running(session, None) if liveness.is_settled(session, now) else ()
        overdue = [one.id for one in running if is_overdue(one, first, grace_seconds)]
        stranded = _list_stranded(session, now)
    done = 0
    for operation_id in [*overdue, *stranded]:
        try:
            with database.transaction() as session:
                session.info[completion.IMAGE_STORE] = store
                session.info["notify"] = notify
                done += _reap_one(session, now, operation_id, grace_seconds)
        except Exception as error:
            if is_unreachable(error):
                raise
            log.exception("Operation %d could not be reaped; continuing with the others", operation_id)
    return done


def fail_overdue(session: Session, now: datetime, grace_seconds: float, host: str) -> Sequence[str]:
    """Fail the host's operations past their deadline; returns the ids of their servers."""
    if not liveness.is_settled(session, now):
        return []
    late = [one for one in operations.list_running(session, host) if is_overdue(one, now, grace_seconds)]
    for operation in late:
        _fail(session, now, operation, grace_seconds)
    return [operation.server_id for operation in late]


def is_overdue(operation: Operation, now: datetime, grace_seconds: float) -> bool:
    """Return whether the operation was started, or else queued, longer ago than its deadline allows."""
    since = operation.started_at or operation.created_at
    return (now - since).total_seconds() > completion.deadline_seconds(operation.task, grace_seconds)


def _list_stranded(session: Session, now: datetime, only: int | None = None) -> list[int]:
    """Return operations queued on hosts that are down or removed, and deletes running there, oldest first.

    `only` restricts the result to one operation.
    """
    query = (
        select(Operation.id)
        .outerjoin(Host, Host.name == Operation.host)
        .outerjoin(Heartbeat, Heartbeat.host == Host.name)
        .where(
            or_(
                Operation.state == OperationState.QUEUED,
                and_(Operation.state == OperationState.RUNNING, Operation.task == DELETE.task),
            ),
            or_(Host.seq.is_(None), Host.forced_down, Heartbeat.last_seen < liveness.down_before(session, now)),
        )
    )
    if only is not None:
        query = query.where(Operation.id == only)
    return list(session.scalars(query.order_by(Operation.id)))


def _reap_one(session: Session, now: datetime, operation_id: int, grace_seconds: float) -> bool:
    """Reap one operation. It is loaded again and locked, as another process may have been faster."""
    operation = session.scalar(select(Operation).where(Operation.id == operation_id).with_for_update())
    if operation is None or operation.state not in OPEN_OPERATION_STATES:
        return False
    if operation.task == DELETE.task and _list_stranded(session, now, operation_id):
        return completion.finish(session, now, operation, Outcome())
    if operation.state == OperationState.QUEUED and operation.attempts == 0 and operation.task in retry.RESCHEDULABLE:
        server = session.scalar(
            select(Server)
            .where(
                Server.id == operation.server_id,
                Server.generation == operation.generation,
                Server.task_state == operation.task,
                Server.deleted.is_(False),
            )
            .with_for_update()
        )
        if server is None:
            completion.mark_superseded(session, now, operation)
            return True
        if retry.reschedule(session, now, server, operation, f"Host {operation.host} went down before it began."):
            return True
    if not (liveness.is_settled(session, now) and is_overdue(operation, now, grace_seconds)):
        return False
    _fail(session, now, operation, grace_seconds)
    return True


def _fail(session: Session, now: datetime, operation: Operation, grace_seconds: float) -> None:
    seconds = completion.deadline_seconds(operation.task, grace_seconds)
    error = f"The host did not finish within {seconds:.0f} seconds."
    if operation.state == OperationState.QUEUED:
        error = f"Host {operation.host} is down."
    completion.finish(session, now, operation, Outcome(error=error, final=True))
