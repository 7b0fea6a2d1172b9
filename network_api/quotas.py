"""Quotas of networks, subnets, ports and subnet pools, checked in the transaction that creates the resource."""

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.errors import Conflict
from network_api.errors import OverQuota
from network_api.models import Network, NetworkQuota, Port, Subnet, SubnetPool

DEFAULTS: Mapping[str, int] = {"network": 100, "subnet": 100, "port": -1, "subnetpool": -1}
"""Ports are unlimited: a /64 does not run out, and servers have a quota."""

MODELS: Mapping[str, type[Network | Subnet | Port | SubnetPool]] = {
    "network": Network,
    "subnet": Subnet,
    "port": Port,
    "subnetpool": SubnetPool,
}

UNLIMITED = -1


def limits(session: Session, project_id: str) -> dict[str, int]:
    """Return the project's limits by resource; -1 is unlimited."""
    row = session.get(NetworkQuota, project_id)
    given = {name: getattr(row, name) for name in DEFAULTS} if row else {}
    return {name: default if given.get(name) is None else given[name] for name, default in DEFAULTS.items()}


def list_customized_projects(session: Session) -> list[str]:
    """Return the projects with limits that differ from the defaults."""
    return list(session.scalars(select(NetworkQuota.project_id).order_by(NetworkQuota.project_id)))


def set_limits(session: Session, project_id: str, changes: Mapping[str, int], *, check_usage: bool) -> None:
    """Change limits of the project. Raises Conflict with `check_usage` for a limit below the current usage."""
    row = session.get(NetworkQuota, project_id) or NetworkQuota(project_id=project_id)
    session.add(row)
    for name, limit in changes.items():
        if check_usage and limit != UNLIMITED and count_used(session, project_id, name) > limit:
            raise Conflict(f"Quota limit for {name} cannot be less than the project's current usage.")
        setattr(row, name, limit)
    session.flush()


def reset(session: Session, project_id: str) -> None:
    """Restore the defaults. Idempotent."""
    row = session.get(NetworkQuota, project_id)
    if row is not None:
        session.delete(row)


def count_used(session: Session, project_id: str, resource: str) -> int:
    """Return the number of resources of this kind that the project owns."""
    model = MODELS[resource]
    return session.scalar(select(func.count()).select_from(model).where(model.project_id == project_id)) or 0


def reserve(session: Session, project_id: str, resource: str) -> None:
    """Reserve one resource, which the calling transaction is about to insert. Raises OverQuota.

    The remaining quota is computed once per transaction, so creating a thousand resources costs one query. Without a
    limit no lock is taken.
    """
    room: dict[tuple[str, str], int | None] = session.info.setdefault("network_room", {})
    key = (project_id, resource)
    if key not in room:
        limit = limits(session, project_id)[resource]
        if limit == UNLIMITED:
            room[key] = None
        else:
            _lock_project(session, project_id)
            room[key] = limit - count_used(session, project_id, resource)
    left = room[key]
    if left is None:
        return
    if left <= 0:
        raise OverQuota(resource)
    room[key] = left - 1


def _lock_project(session: Session, project_id: str) -> None:
    """Serialize quota checks of a project on PostgreSQL; SQLite has one writer at a time."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"network quota {project_id}"))))
