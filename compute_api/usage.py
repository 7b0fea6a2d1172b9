"""Usage reports: each server's seconds within a period, by flavor. Billing reads this.

A server counts from its first boot (`launched_at`) until its deletion (`terminated_at`) in every state, each second
with its flavor at that time. Deleted and purged servers are included.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    String,
    cast,
    extract,
    func,
    literal,
    or_,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.orm import Session

from app.core import errors
from app.db.database import UtcDateTime
from compute_api.models import PastServer, Server, ServerSize

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUsage:
    """A server's usage within a period.

    `parts` are (duration, flavor) pairs within the period; `uptime_seconds` is the whole lifetime. `flavor` is the
    current or last one.
    """

    id: str
    project_id: str
    name: str
    flavor: dict[str, Any]
    vm_state: str
    started_at: datetime
    ended_at: datetime | None
    parts: tuple[tuple[timedelta, dict[str, Any]], ...]
    uptime_seconds: int

    @property
    def hours(self) -> float:
        return sum((time for time, _ in self.parts), timedelta()) / timedelta(hours=1)

    @property
    def disk_gib(self) -> int:
        return disk_gib(self.flavor)


@dataclass(slots=True, kw_only=True)
class ProjectTotal:
    """A project's usage in a period, in microseconds: of servers, and multiplied by their resources."""

    project_id: str
    servers: int = 0
    vcpus: int = 0
    ram_mib: int = 0
    disk_gib: int = 0

    def add(self, microseconds: int, flavor: dict[str, Any]) -> None:
        """Add the usage of a flavor. Integers, so that the order of additions does not change a sum."""
        self.servers += microseconds
        self.vcpus += microseconds * flavor["vcpus"]
        self.ram_mib += microseconds * flavor["ram"]
        self.disk_gib += microseconds * disk_gib(flavor)


def disk_gib(flavor: dict[str, Any]) -> int:
    """Return the size of root and ephemeral disks."""
    return int(flavor["disk"]) + int(flavor["ephemeral"])


def sum_usage(project_id: str, servers: Iterable[ServerUsage]) -> ProjectTotal:
    """Return the sum of the usage of a project's servers."""
    made = ProjectTotal(project_id=project_id)
    for one in servers:
        for time, flavor in one.parts:
            made.add(time // MICROSECOND, flavor)
    return made


def project_totals(session: Session, now: datetime, start: datetime, stop: datetime) -> list[ProjectTotal]:
    """Return every project's usage in the period, in the order of their oldest servers in it.

    The database sums by project and flavor; resized servers are added one by one.
    """
    there = union_all(*_select_present(start, stop)).subquery()
    resized = select(ServerSize.server_id).where(ServerSize.until > start)
    sizes = _load_history(session, select(ServerSize).where(ServerSize.until > start))
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    earliest, latest = (func.min, func.max) if is_sqlite else (func.least, func.greatest)
    begin = latest(there.c.launched_at, literal(start, UtcDateTime()))
    end = earliest(func.coalesce(there.c.terminated_at, literal(now, UtcDateTime())), literal(stop, UtcDateTime()))
    length = _microseconds(end) - _microseconds(begin) if is_sqlite else _microseconds_between(begin, end)
    grouped = (
        select(there.c.project_id, there.c.flavor, func.sum(latest(length, 0)), func.min(there.c.seq))
        .where(there.c.id.not_in(resized))
        .group_by(there.c.project_id, there.c.flavor)
    )
    found: dict[str, ProjectTotal] = {}
    first: dict[str, int] = {}
    for project_id, flavor, microseconds, seq in session.execute(grouped):
        found.setdefault(project_id, ProjectTotal(project_id=project_id)).add(int(microseconds), flavor)
        first[project_id] = min(seq, first.get(project_id, seq))
    if sizes:
        one_by_one = select(there).where(there.c.id.in_(resized))
        for row in session.execute(one_by_one):
            made = found.setdefault(row.project_id, ProjectTotal(project_id=row.project_id))
            for time, flavor in _usage(row, now, start, stop, sizes).parts:
                made.add(time // MICROSECOND, flavor)
            first[row.project_id] = min(row.seq, first.get(row.project_id, row.seq))
    return sorted(found.values(), key=lambda one: first[one.project_id])


def list_usage(
    session: Session,
    now: datetime,
    start: datetime,
    stop: datetime,
    *,
    project_id: str | None = None,
    limit: int | None = None,
    marker: str | None = None,
) -> Iterator[ServerUsage]:
    """Yield the servers that existed in the period, oldest first. Raises BadRequest for an unknown marker."""
    whole = _select_present(start, stop, project_id)
    after = 0 if marker is None else _seq(session, marker)
    parts = [one.where(one.selected_columns.seq > after).order_by("seq").limit(limit) for one in whole]
    page = union_all(*(select(one.subquery()) for one in parts)).subquery()
    earlier = select(ServerSize).where(ServerSize.until > start)
    if project_id is not None or limit is not None:
        earlier = earlier.where(ServerSize.server_id.in_(select(page.c.id)))
    sizes = _load_history(session, earlier)
    for row in session.execute(select(page).order_by(page.c.seq).limit(limit)):
        yield _usage(row, now, start, stop, sizes)


def _select_present(start: datetime, stop: datetime, project_id: str | None = None) -> list[Select[Any]]:
    """Return queries of existing and of purged servers that existed in the period."""
    shown = ("seq", "id", "project_id", "name", "flavor", "launched_at", "terminated_at")
    known = (
        select(*(getattr(Server, name) for name in shown), Server.vm_state)
        .where(Server.launched_at < stop)
        .where(or_(Server.terminated_at.is_(None), Server.terminated_at > start))
    )
    past = (
        select(*(getattr(PastServer, name) for name in shown), literal("deleted", String(32)).label("vm_state"))
        .where(PastServer.launched_at < stop)
        .where(PastServer.terminated_at > start)
    )
    if project_id is not None:
        known, past = known.where(Server.project_id == project_id), past.where(PastServer.project_id == project_id)
    return [known, past]


def _seq(session: Session, marker: str) -> int:
    for kind in (Server, PastServer):
        if (found := session.scalar(select(kind.seq).where(kind.id == marker))) is not None:
            return found
    raise errors.BadRequest(f"marker [{marker}] not found")


FlavorHistory = dict[str, list[tuple[datetime, dict[str, Any]]]]
"""Former flavors of each server with their end times."""


def _load_history(session: Session, query: Select[ServerSize]) -> FlavorHistory:
    found: FlavorHistory = defaultdict(list)
    for one in session.scalars(query.order_by(ServerSize.id)):
        found[one.server_id].append((one.until, one.flavor))
    return found


def _usage(row: Any, now: datetime, start: datetime, stop: datetime, sizes: FlavorHistory) -> ServerUsage:
    end = row.terminated_at or now
    return ServerUsage(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        flavor=row.flavor,
        vm_state="terminated" if row.terminated_at else row.vm_state,
        started_at=row.launched_at,
        ended_at=row.terminated_at,
        parts=_split_by_flavor(
            max(row.launched_at, start), min(end, stop), [*sizes.get(row.id, ()), (end, row.flavor)]
        ),
        uptime_seconds=int((end - row.launched_at).total_seconds()),
    )


def _split_by_flavor(
    begin: datetime, end: datetime, sizes: Sequence[tuple[datetime, dict[str, Any]]]
) -> tuple[tuple[timedelta, dict[str, Any]], ...]:
    """Split a period into (duration, flavor) pairs at the end times of flavors."""
    found = []
    for until, flavor in sizes:
        until = min(until, end)
        if until > begin:
            found.append((until - begin, flavor))
            begin = until
    return tuple(found)


def _microseconds(time: ColumnElement[datetime]) -> ColumnElement[int]:
    """Return microseconds since 1970. SQLite stores times as text, and its functions have millisecond precision."""
    text = type_coerce(time, String())
    return cast(func.strftime("%s", text), BigInteger) * 1_000_000 + cast(func.substr(text, 21, 6), BigInteger)


def _microseconds_between(begin: ColumnElement[datetime], end: ColumnElement[datetime]) -> ColumnElement[int]:
    return cast(extract("epoch", end - begin) * 1_000_000, BigInteger)
