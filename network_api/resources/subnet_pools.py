"""Subnet pools: prefixes of the operator from which subnets are allocated."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from ipaddress import IPv6Network
from itertools import pairwise
from typing import Any
from uuid import uuid4

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from app.core.caller import Caller
from app.core.errors import Conflict
from network_api import quotas
from network_api.errors import InvalidInput, SubnetPoolInUse, SubnetPoolNotFound
from network_api.models import Subnet, SubnetPool
from network_api.prefixes import SUBNET_LENGTH, contains, pool_prefixes
from network_api.visibility import CALLER_PROJECT, restrict_to_visible, visibility_parameters

COLUMNS = SubnetPool.__table__.c

VISIBLE = or_(COLUMNS.project_id == CALLER_PROJECT, COLUMNS.shared)
"""Pools of the caller's project and shared pools."""


def find(session: Session, caller: Caller, pool_id: str, *, lock: bool = False) -> SubnetPool:
    """Return a pool; `lock` selects it FOR UPDATE. Raises SubnetPoolNotFound when it is missing or not visible."""
    query = select(SubnetPool).where(SubnetPool.id == pool_id)
    if lock:
        query = query.with_for_update()
    pool = session.scalar(restrict_to_visible(caller, query, VISIBLE), visibility_parameters(caller))
    if pool is None:
        raise SubnetPoolNotFound(pool_id)
    return pool


def default_pool(session: Session) -> SubnetPool:
    """Return the default pool, which has the operator's prefix."""
    return session.scalars(select(SubnetPool).where(SubnetPool.is_default)).one()


def find_containing(session: Session, caller: Caller, cidr: IPv6Network) -> SubnetPool | None:
    """Return the visible pool that contains the /64, if any."""
    seen = session.scalars(restrict_to_visible(caller, select(SubnetPool), VISIBLE), visibility_parameters(caller))
    return next((pool for pool in seen if contains(pool, cidr)), None)


def any_contains(session: Session, cidr: IPv6Network) -> bool:
    """Whether a pool of any project contains the /64."""
    return any(contains(pool, cidr) for pool in session.scalars(select(SubnetPool)))


def create(
    session: Session,
    now: datetime,
    *,
    project_id: str,
    name: str,
    prefixes: Sequence[IPv6Network],
    description: str = "",
    shared: bool = False,
    tags: Sequence[str] = (),
) -> SubnetPool:
    """Create a pool. Raises OverQuota, and InvalidInput for prefixes longer than /64 or overlapping other pools."""
    quotas.reserve(session, project_id, "subnetpool")
    _check(session, prefixes)
    pool = SubnetPool(
        id=str(uuid4()),
        project_id=project_id,
        name=name,
        description=description,
        shared=shared,
        is_default=False,
        prefixes=[str(prefix) for prefix in sorted(prefixes)],
        cursor=0,
        tags=list(tags),
        created_at=now,
        updated_at=now,
    )
    session.add(pool)
    session.flush()
    return pool


def change(session: Session, now: datetime, pool: SubnetPool, changes: Mapping[str, Any]) -> None:
    """Set name, description, tags or prefixes. Raises InvalidInput, and Conflict when prefixes would be removed."""
    if "prefixes" in changes:
        wanted: Sequence[IPv6Network] = changes["prefixes"]
        missing = [str(old) for old in pool_prefixes(pool) if not any(old.subnet_of(new) for new in wanted)]
        if missing:
            raise Conflict(f"Prefixes of a subnet pool cannot be removed: {', '.join(missing)}.")
        _check(session, wanted, pool)
        pool.prefixes = [str(prefix) for prefix in sorted(wanted)]
    for name in ("name", "description", "tags"):
        if name in changes:
            setattr(pool, name, changes[name])
    pool.updated_at = now
    session.flush()


def delete(session: Session, pool: SubnetPool) -> None:
    """Delete the pool. Raises SubnetPoolInUse while it has subnets, Conflict for the default pool."""
    if pool.is_default:
        raise Conflict("The default subnet pool cannot be deleted: networks get their prefix from it.")
    if session.scalar(select(exists().where(Subnet.subnet_pool_id == pool.id))):
        raise SubnetPoolInUse(pool.id)
    session.delete(pool)
    session.flush()


def _check(session: Session, prefixes: Sequence[IPv6Network], own: SubnetPool | None = None) -> None:
    for prefix in prefixes:
        if prefix.prefixlen > SUBNET_LENGTH:
            raise InvalidInput(f"{prefix} is longer than /{SUBNET_LENGTH}.")
        if prefix.is_multicast or prefix.is_link_local or prefix.is_loopback:
            raise InvalidInput(f"{prefix} is not a prefix of unicast addresses that servers can use.")
    taken = list(prefixes)
    for pool in session.scalars(select(SubnetPool)):
        if pool is not own:
            taken += pool_prefixes(pool)
    taken.sort()
    for lower, upper in pairwise(taken):
        if lower.overlaps(upper):
            raise InvalidInput(f"{upper} overlaps with {lower}.")
