"""What becomes of servers that were deleted long ago: their rows go, and what usage needs of them stays.

In small transactions of their own, while the cloud is at work: whoever ends one in the middle loses nothing, and any
number of processes may purge at the same time.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, insert, select
from sqlalchemy.orm import Session

from app.core.clock import Clock
from app.db.database import Database, error_reason, is_unreachable
from compute_api.models import Migration, Operation, PastServer, Server, ServerAction, ServerSize

log = logging.getLogger(__name__)

BATCH = 100
"""Servers that go in one transaction."""
WINDOW = 2000
"""Rows that are looked at by one query."""
DEPENDENT_TABLES = (Operation, ServerAction, Migration)
"""What goes with a server."""
INTERVAL = timedelta(days=1)
REST_FACTOR = 9
"""By itself the cloud rests between two batches for so many times as long as the last one took."""
MIN_REST_SECONDS = 0.1
RETRY_SECONDS = 300.0
MAX_DAYS = 36_500.0
FLAVOR_FIELDS = ("name", "vcpus", "ram", "disk", "ephemeral")


@dataclass(slots=True)
class PurgedCount:
    """How much went, or would go."""

    servers: int = 0
    rows: int = 0
    """Of all tables, those of the servers among them."""


def purge(database: Database, before: datetime, *, usage: bool = False, dry_run: bool = False) -> Iterator[PurgedCount]:
    """Remove what is left of servers that were deleted before then, a batch at each step, oldest first; yields what
    each batch was. With `usage`, usage forgets them, too. A dry run only counts.

    A server for which a host still has something to do stays, and so do the newest rows of all: SQLite would give
    their numbers to others.
    """
    with database.reading() as session:
        last = session.scalar(select(func.max(Server.seq))) or 0
        spared = _newest(session)
    after = 0
    while True:
        with database.reading() as session:
            window = session.execute(
                select(Server.seq, Server.id, Server.created_at, _is_purgeable(before))
                .where(Server.seq > after, Server.seq < last)
                .order_by(Server.seq)
                .limit(WINDOW)
            ).all()
        over = [(seq, server_id) for seq, server_id, _, is_over in window if is_over and server_id not in spared]
        for at in range(0, len(over), BATCH):
            yield _remove(database, over[at : at + BATCH], before, usage=usage, dry_run=dry_run)
        if not over:
            yield PurgedCount()  # so that whoever steps through this may rest, or end, in a long row of younger ones
        if len(window) < WINDOW or window[-1].created_at >= before:  # servers are numbered as they are created
            break
        after = window[-1].seq
    if usage:
        yield from _purge_usage(database, before, dry_run=dry_run)


def _is_purgeable(before: datetime) -> ColumnElement[bool]:
    waiting = select(Operation.id).where(Operation.server_id == Server.id, Operation.state.in_(("queued", "running")))
    return and_(Server.deleted, Server.terminated_at < before, ~waiting.exists())


def _newest(session: Session) -> set[str]:
    """The servers that have the newest row of a table."""
    newest = (select(kind.server_id).order_by(kind.id.desc()).limit(1) for kind in DEPENDENT_TABLES)
    return {found for query in newest if (found := session.scalar(query)) is not None}


def _remove(
    database: Database, servers: Sequence[tuple[int, str]], before: datetime, *, usage: bool, dry_run: bool
) -> PurgedCount:
    if dry_run:
        with database.reading() as session:
            ids = [server_id for _, server_id in servers]
            followers = (select(func.count()).where(kind.server_id.in_(ids)) for kind in DEPENDENT_TABLES)
            rows = sum(session.scalar(query) or 0 for query in followers)
        return PurgedCount(servers=len(ids), rows=len(ids) + rows)
    with database.transaction() as session:
        query = select(Server.seq, Server.id, Server.project_id, Server.name, Server.flavor)
        query = query.add_columns(Server.launched_at, Server.terminated_at)
        query = query.where(Server.seq.in_([seq for seq, _ in servers]), _is_purgeable(before))
        found = session.execute(query.with_for_update(skip_locked=True)).all()  # somebody else may have been quicker
        past = [
            row._asdict() | {"flavor": {name: row.flavor[name] for name in FLAVOR_FIELDS}}
            for row in found
            if row.launched_at
        ]
        if past and not usage:
            session.execute(insert(PastServer), past)
        ids = [row.id for row in found]
        removed = PurgedCount(servers=len(ids))
        for kind in DEPENDENT_TABLES:
            removed.rows += _delete_rows(session, kind, kind.server_id.in_(ids))
        forgotten = set(ids) if usage else set(ids) - {one["id"] for one in past}
        removed.rows += _delete_rows(session, ServerSize, ServerSize.server_id.in_(forgotten))
        removed.rows += _delete_rows(session, Server, Server.seq.in_([row.seq for row in found]))
    return removed


def _purge_usage(database: Database, before: datetime, *, dry_run: bool) -> Iterator[PurgedCount]:
    """What earlier purges have kept for usage."""
    old = select(PastServer.id).where(PastServer.terminated_at < before)
    if dry_run:
        with database.reading() as session:
            yield PurgedCount(rows=session.scalar(select(func.count()).select_from(old.subquery())) or 0)
        return
    while True:
        with database.transaction() as session:
            ids = list(session.scalars(old.limit(BATCH)))
            rows = _delete_rows(session, ServerSize, ServerSize.server_id.in_(ids))
            rows += _delete_rows(session, PastServer, PastServer.id.in_(ids))
        if not ids:
            return
        yield PurgedCount(rows=rows)


def _delete_rows(session: Session, kind: type, which: ColumnElement[bool]) -> int:
    result = session.execute(delete(kind).where(which).execution_options(synchronize_session=False))
    return int(result.rowcount)  # type: ignore[attr-defined]


class PurgeThread:
    """Purges once a day by itself, in a thread of its own, what was deleted more than `keep_days` ago.

    0 is never, and so is what is below it: whoever writes -1 does not want everything gone.
    """

    def __init__(self, database: Database, clock: Clock, keep_days: float) -> None:
        self._database, self._clock = database, clock
        self._keep = timedelta(days=min(max(keep_days, 0.0), MAX_DAYS))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="purging", daemon=True)

    def start(self) -> None:
        """Begin with what is there."""
        if self._keep:
            self._thread.start()

    def stop(self) -> None:
        """Return when nothing is under way."""
        self._stopping.set()
        if self._keep:
            self._thread.join()

    def _run(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                self._once()
                pause = INTERVAL.total_seconds()
            except Exception as error:
                if is_unreachable(error):
                    log.warning("Old rows stay for now, the database does not answer: %s", error_reason(error))
                else:
                    log.exception("Old rows stay for now")
                pause = RETRY_SECONDS

    def _once(self) -> None:
        whole = PurgedCount()
        began = time.monotonic()
        for removed in purge(self._database, self._clock.now() - self._keep):
            whole.servers += removed.servers
            whole.rows += removed.rows
            if self._stopping.wait(max(REST_FACTOR * (time.monotonic() - began), MIN_REST_SECONDS)):
                break
            began = time.monotonic()
        if whole.rows:
            log.info("Purged %d servers that were deleted over %s ago: %d rows", whole.servers, self._keep, whole.rows)
