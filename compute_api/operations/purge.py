"""Purge of deleted servers: deletes rows of servers deleted long ago and keeps what usage reports need.

Works in small transactions of its own while the cloud is in use. A purge may be interrupted at any time, and any number
of processes may purge at once.
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
from compute_api.states import OPEN_OPERATION_STATES

log = logging.getLogger(__name__)

BATCH = 100
"""Servers per transaction."""
WINDOW = 2000
"""Servers per query."""
DEPENDENT_TABLES = (Operation, ServerAction, Migration)
"""Tables whose rows are deleted with their server."""
INTERVAL = timedelta(days=1)
REST_FACTOR = 9
"""Pause between two batches, as a multiple of the duration of the last one."""
MIN_REST_SECONDS = 0.1
RETRY_SECONDS = 300.0
MAX_DAYS = 36_500.0
FLAVOR_FIELDS = ("name", "vcpus", "ram", "disk", "ephemeral")


@dataclass(slots=True)
class PurgedCount:
    """Numbers of purged rows, or of rows that a dry run would purge."""

    servers: int = 0
    rows: int = 0
    """Rows of all tables, `servers` included."""


def purge(database: Database, before: datetime, *, usage: bool = False, dry_run: bool = False) -> Iterator[PurgedCount]:
    """Purge servers deleted before a time, oldest first; yields the count of each batch. `usage` purges usage records
    too.

    A dry run only counts. Servers with open operations stay, and so do the newest rows of the tables, whose numbers
    SQLite would reuse.
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
            yield PurgedCount()  # lets the caller pause or stop
        if len(window) < WINDOW or window[-1].created_at >= before:  # servers are numbered as they are created
            break
        after = window[-1].seq
    if usage:
        yield from _purge_usage(database, before, dry_run=dry_run)


def _is_purgeable(before: datetime) -> ColumnElement[bool]:
    waiting = select(Operation.id).where(Operation.server_id == Server.id, Operation.state.in_(OPEN_OPERATION_STATES))
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
        found = session.execute(query.with_for_update(skip_locked=True)).all()  # a concurrent purge may hold some
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
    """Purge usage records of servers that earlier purges have deleted."""
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
    """Thread that purges once a day servers deleted more than `keep_days` ago.

    0 or a negative number disables it.
    """

    def __init__(self, database: Database, clock: Clock, keep_days: float) -> None:
        self._database, self._clock = database, clock
        self._keep = timedelta(days=min(max(keep_days, 0.0), MAX_DAYS))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="purge", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        if self._keep:
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it."""
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
                    log.warning(
                        "Purge failed, the database is unreachable; retrying in %d s: %s",
                        RETRY_SECONDS,
                        error_reason(error),
                    )
                else:
                    log.exception("Purge failed, retrying in %d s", RETRY_SECONDS)
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
