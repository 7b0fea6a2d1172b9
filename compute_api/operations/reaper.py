"""What is done about operations that their hosts do not do: nothing is under way for ever.

Any number of processes may sweep at the same time, and as often as they like.
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
from compute_api.states import DELETE
from image_api.stores.file import Store

log = logging.getLogger(__name__)

AGENT_GRACE = timedelta(seconds=30)
"""So long the host's own agent may be the first to notice that something takes too long: it can also end it."""


def reap(
    database: Database, now: datetime, grace_seconds: float, *, store: Store | None = None, notify: Notify | None = None
) -> int:
    """Look at all hosts once; returns how many operations something was done about.

    What takes too long has failed. On hosts that are down, what was not begun goes to another host where that is
    possible, deletes are done, and the rest fails when it would have been too late anyway. While nobody hears hosts,
    and for a minute after that, nothing is too late: it may have been done, and waits to be reported.
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
            log.exception("Operation %d could not be settled; the others are", operation_id)
    return done


def fail_overdue(session: Session, now: datetime, grace_seconds: float, host: str) -> Sequence[str]:
    """Give up on what takes the host longer than it may; returns the ids of the servers."""
    if not liveness.is_settled(session, now):
        return []
    late = [one for one in operations.list_running(session, host) if is_overdue(one, now, grace_seconds)]
    for operation in late:
        _fail(session, now, operation, grace_seconds)
    return [operation.server_id for operation in late]


def is_overdue(operation: Operation, now: datetime, grace_seconds: float) -> bool:
    """Whether the operation was begun, or if never begun queued, longer ago than it may take."""
    since = operation.started_at or operation.created_at
    return (now - since).total_seconds() > completion.deadline_seconds(operation.task, grace_seconds)


def _list_stranded(session: Session, now: datetime, only: int | None = None) -> list[int]:
    """Operations that wait on hosts that are down or gone, and deletes that such hosts had begun; oldest first.

    `only` asks about one of them.
    """
    query = (
        select(Operation.id)
        .outerjoin(Host, Host.name == Operation.host)
        .outerjoin(Heartbeat, Heartbeat.host == Host.name)
        .where(
            or_(Operation.state == "queued", and_(Operation.state == "running", Operation.task == DELETE.task)),
            or_(Host.seq.is_(None), Host.forced_down, Heartbeat.last_seen < liveness.down_before(session, now)),
        )
    )
    if only is not None:
        query = query.where(Operation.id == only)
    return list(session.scalars(query.order_by(Operation.id)))


def _reap_one(session: Session, now: datetime, operation_id: int, grace_seconds: float) -> bool:
    """Do about one operation what can be done; it is looked at again, and locked, as others may have been quicker."""
    operation = session.scalar(select(Operation).where(Operation.id == operation_id).with_for_update())
    if operation is None or operation.state not in ("queued", "running"):
        return False
    if operation.task == DELETE.task and _list_stranded(session, now, operation_id):
        return completion.finish(session, now, operation, Outcome())
    if operation.state == "queued" and operation.attempts == 0 and operation.task in retry.RESCHEDULABLE:
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
        if retry.reschedule(session, now, server, operation, f"Host {operation.host} went silent before it began."):
            return True
    if not (liveness.is_settled(session, now) and is_overdue(operation, now, grace_seconds)):
        return False
    _fail(session, now, operation, grace_seconds)
    return True


def _fail(session: Session, now: datetime, operation: Operation, grace_seconds: float) -> None:
    seconds = completion.deadline_seconds(operation.task, grace_seconds)
    error = f"The host did not finish within {seconds:.0f} seconds."
    if operation.state == "queued":
        error = f"Host {operation.host} is down."
    completion.finish(session, now, operation, Outcome(error=error, final=True))
