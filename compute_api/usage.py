"""What projects have used: each server's seconds within a period, exact to the second. Billing reads this.

A server counts from when it first ran (`launched_at`) until it was deleted (`terminated_at`), in whatever state it is,
each second with the size it had then; what was deleted counts as well.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app import errors
from compute_api.models import Server, ServerSize


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUsage:
    """One server's part in a period. `seconds` are within it, `uptime_seconds` are all, and `parts` say for how many of
    the seconds it had which flavor; `flavor` is the one it has or last had."""

    id: str
    project_id: str
    name: str
    flavor: dict[str, Any]
    vm_state: str
    started_at: datetime
    ended_at: datetime | None
    parts: tuple[tuple[float, dict[str, Any]], ...]
    uptime_seconds: int

    @property
    def seconds(self) -> float:
        return sum(seconds for seconds, _ in self.parts)

    @property
    def hours(self) -> float:
        return self.seconds / 3600

    @property
    def disk_gib(self) -> int:
        return disk_gib(self.flavor)


def disk_gib(flavor: dict[str, Any]) -> int:
    """Root and ephemeral disks together."""
    return int(flavor["disk"]) + int(flavor["ephemeral"])


def within(
    session: Session,
    now: datetime,
    start: datetime,
    stop: datetime,
    *,
    project_id: str | None = None,
    limit: int | None = None,
    marker: str | None = None,
) -> Iterator[ServerUsage]:
    """The servers that were there in the period, oldest first. BadRequest for an unknown marker."""
    query = (
        select(
            Server.id,
            Server.project_id,
            Server.name,
            Server.flavor,
            Server.vm_state,
            Server.launched_at,
            Server.terminated_at,
        )
        .where(Server.launched_at < stop, or_(Server.terminated_at.is_(None), Server.terminated_at > start))
        .order_by(Server.seq)
    )
    earlier = select(ServerSize.server_id, ServerSize.until, ServerSize.flavor).where(ServerSize.until > start)
    if project_id is not None:
        query = query.where(Server.project_id == project_id)
        earlier = earlier.join(Server, Server.id == ServerSize.server_id).where(Server.project_id == project_id)
    if marker is not None:
        if (last := session.scalar(select(Server.seq).where(Server.id == marker))) is None:
            raise errors.BadRequest(f"marker [{marker}] not found")
        query = query.where(Server.seq > last)
    if limit is not None:
        query = query.limit(limit)
    sizes: dict[str, list[tuple[datetime, dict[str, Any]]]] = defaultdict(list)
    for server_id, until, flavor in session.execute(earlier.order_by(ServerSize.id)):
        sizes[server_id].append((until, flavor))
    for server_id, project, name, flavor, vm_state, launched_at, terminated_at in session.execute(query):
        end = terminated_at or now
        yield ServerUsage(
            id=server_id,
            project_id=project,
            name=name,
            flavor=flavor,
            vm_state="terminated" if terminated_at else vm_state,
            started_at=launched_at,
            ended_at=terminated_at,
            parts=_parts(max(launched_at, start), min(end, stop), [*sizes[server_id], (end, flavor)]),
            uptime_seconds=int((end - launched_at).total_seconds()),
        )


def _parts(
    begin: datetime, end: datetime, sizes: Sequence[tuple[datetime, dict[str, Any]]]
) -> tuple[tuple[float, dict[str, Any]], ...]:
    """The seconds between these two moments, by the size that a server had then; each size ends where it says."""
    found = []
    for until, flavor in sizes:
        until = min(until, end)
        if until > begin:
            found.append(((until - begin).total_seconds(), flavor))
            begin = until
    return tuple(found)
