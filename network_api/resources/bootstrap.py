"""Bootstrap of the network service: default subnet pool, VNI range, and the network `public`."""

from datetime import datetime
from ipaddress import IPv6Network
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.errors import OperatorError
from network_api.models import Network, SegmentRange, Subnet, SubnetPool
from network_api.prefixes import allocate_cidr, allocate_segment

SEGMENTS = 4096
"""Size of an installation's VNI range."""


def operator_prefix(session: Session) -> IPv6Network | None:
    """Return the prefix of the default pool; None before `bootstrap`."""
    pool = session.scalar(select(SubnetPool).where(SubnetPool.is_default))
    return IPv6Network(pool.prefixes[0]) if pool else None


def bootstrap(
    session: Session,
    now: datetime,
    *,
    admin_project_id: str,
    prefix: IPv6Network,
    vni_base: int,
    mtu: int,
    name: str = "public",
) -> None:
    """Create the default pool, VNI range and default network if they are missing. Idempotent; runs at every start.

    VNIs are `vni_base` to `vni_base` + 4095. Existing networks keep their MTU. Raises OperatorError when the cloud has
    another prefix, or when the prefix is longer than /64.
    """
    pool = _ensure_pool(session, now, admin_project_id, prefix)
    segments = session.scalar(select(SegmentRange))
    if segments is None:
        segments = SegmentRange(id=str(uuid4()), first_vni=vni_base, next_vni=vni_base, mtu=mtu)
        segments.last_vni = vni_base + SEGMENTS - 1
        session.add(segments)
        session.flush()
    segments.mtu = mtu
    if session.scalar(select(Network.id).where(Network.is_default)) is None:
        _make_default(session, now, admin_project_id, pool, name)


def _ensure_pool(session: Session, now: datetime, project_id: str, prefix: IPv6Network) -> SubnetPool:
    pool = session.scalar(select(SubnetPool).where(SubnetPool.is_default))
    if pool is not None:
        if str(prefix) not in pool.prefixes:
            raise OperatorError(
                f"This cloud hands out {', '.join(pool.prefixes)} already; {prefix} needs a state directory of its own."
            )
        return pool
    if prefix.prefixlen > 64:
        raise OperatorError(f"A network needs a /64, so the prefix must be /64 or shorter, not {prefix}.")
    pool = SubnetPool(
        id=str(uuid4()),
        project_id=project_id,
        name="prefix",
        description="The operator's prefix, from which every network gets its /64",
        shared=True,
        is_default=True,
        prefixes=[str(prefix)],
        created_at=now,
        updated_at=now,
    )
    session.add(pool)
    session.flush()
    return pool


def _make_default(session: Session, now: datetime, project_id: str, pool: SubnetPool, name: str) -> None:
    vni, mtu = allocate_segment(session)
    cidr = allocate_cidr(session, pool)
    network = Network(
        id=str(uuid4()),
        project_id=project_id,
        name=name,
        description="The network of servers that name none; its addresses are public where the prefix is",
        shared=True,
        is_default=True,
        vni=vni,
        mtu=mtu,
        created_at=now,
        updated_at=now,
    )
    network.subnet = Subnet(
        id=str(uuid4()),
        project_id=project_id,
        subnet_pool_id=pool.id,
        name=name,
        cidr=str(cidr),
        gateway_ip=str(cidr[1]),
        created_at=now,
        updated_at=now,
    )
    session.add(network)
    session.flush()
