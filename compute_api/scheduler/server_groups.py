"""Server groups: affinity and anti-affinity policies and their host constraints."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import uuid4

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from compute_api import quotas
from compute_api.hosts.constraints import HostConstraints
from compute_api.models import Server, ServerGroup


def find(session: Session, caller: Caller, group_id: str) -> ServerGroup:
    """Return the project's group, for an admin any project's. Raises NotFound."""
    query = select(ServerGroup).where(ServerGroup.id == group_id)
    if not caller.is_admin:
        query = query.where(ServerGroup.project_id == caller.project)
    if (found := session.scalar(query)) is None:
        raise errors.NotFound(f"Instance group {group_id} could not be found.")
    return found


def list_groups(session: Session, project_id: str | None, *, limit: int, offset: int) -> list[ServerGroup]:
    """Return groups in creation order; `project_id` None returns those of all projects."""
    query = select(ServerGroup).order_by(ServerGroup.seq).limit(limit).offset(offset)
    if project_id is not None:
        query = query.where(ServerGroup.project_id == project_id)
    return list(session.scalars(query))


def create(
    session: Session, now: datetime, caller: Caller, name: str, policy: str, max_server_per_host: int | None
) -> ServerGroup:
    """Create a group. Raises QuotaExceeded, and Forbidden for a token without a project."""
    project_id = caller.require_project()
    limit = quotas.limits(session, project_id)["server_groups"]
    if 0 <= limit <= count(session, project_id):
        raise errors.QuotaExceeded("Quota exceeded, too many server groups.")
    made = ServerGroup(
        id=str(uuid4()),
        project_id=project_id,
        user_id=caller.user_id,
        name=name,
        policy=policy,
        max_server_per_host=max_server_per_host,
        created_at=now,
    )
    session.add(made)
    session.flush()
    return made


def delete(session: Session, caller: Caller, group_id: str) -> None:
    """Delete a server group. Raises NotFound."""
    session.delete(find(session, caller, group_id))


def count(session: Session, project_id: str) -> int:
    """Return the number of the project's groups."""
    query = select(func.count()).select_from(ServerGroup).where(ServerGroup.project_id == project_id)
    return session.scalar(query) or 0


def members_by_group(session: Session, group_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the ids of each group's servers, oldest first. One query."""
    found: dict[str, list[str]] = {}
    query = select(Server.group_id, Server.id).where(Server.group_id.in_(group_ids), Server.deleted.is_(False))
    for group_id, server_id in session.execute(query.order_by(Server.seq)):
        found.setdefault(group_id or "", []).append(server_id)
    return found


def check_members(session: Session, group: ServerGroup, more: int) -> None:
    """Raise QuotaExceeded unless the group may get `more` servers."""
    limit = quotas.limits(session, group.project_id)["server_group_members"]
    if 0 <= limit < len(members_by_group(session, [group.id]).get(group.id, ())) + more:
        raise errors.QuotaExceeded("Quota exceeded, too many servers in group")


def constraints(session: Session, group: ServerGroup, server_id: str) -> HostConstraints:
    """Return the host constraints that the group's policy and its other servers impose."""
    query = select(Server.host).where(
        Server.group_id == group.id, Server.deleted.is_(False), Server.host.is_not(None), Server.id != server_id
    )
    hosts = Counter(host for host in session.scalars(query) if host is not None)
    everywhere = tuple(sorted(hosts))
    reason = f"server group {group.id} has the policy {group.policy}"
    match group.policy:
        case "affinity":
            return HostConstraints(required=everywhere or None, reason=reason)
        case "anti-affinity":
            full = tuple(sorted(host for host, number in hosts.items() if number >= (group.max_server_per_host or 1)))
            return HostConstraints(forbidden=full, reason=reason)
        case "soft-affinity":
            return HostConstraints(preferred=everywhere)
    return HostConstraints(avoided=everywhere)
