"""Allocation of /64 prefixes to subnets and of VNIs to networks."""

from ipaddress import IPv6Network, ip_network

from sqlalchemy import select
from sqlalchemy.orm import Session

from network_api.errors import NoPrefixLeft, NoSegmentLeft
from network_api.models import Network, SegmentRange, Subnet, SubnetPool

SUBNET_LENGTH = 64
"""SLAAC requires a /64."""

LOCAL = IPv6Network("fd00::/8")
"""Unique local addresses (RFC 4193), which anyone may choose."""


def is_local(cidr: IPv6Network) -> bool:
    """Whether the prefix consists of unique local addresses."""
    return cidr.subnet_of(LOCAL)


def pool_prefixes(pool: SubnetPool) -> list[IPv6Network]:
    """Return the pool's prefixes, lowest first."""
    return sorted(IPv6Network(text) for text in pool.prefixes)


def contains(pool: SubnetPool, cidr: IPv6Network) -> bool:
    """Whether the /64 lies in the pool."""
    return any(cidr.subnet_of(prefix) for prefix in pool_prefixes(pool))


def allocate_cidr(session: Session, pool: SubnetPool) -> IPv6Network:
    """Allocate a free /64 of the pool, round robin, so that a released prefix is not reused at once.

    Advances the pool's cursor. Raises NoPrefixLeft.
    """
    session.refresh(pool, with_for_update=True)
    spans = [(prefix, 1 << (SUBNET_LENGTH - prefix.prefixlen)) for prefix in pool_prefixes(pool)]
    total = sum(count for _, count in spans)
    used = {IPv6Network(cidr) for cidr in session.scalars(select(Subnet.cidr))}
    for step in range(min(total, len(used) + 1)):
        position = (pool.cursor + step) % total
        cidr = _nth(spans, position)
        if cidr not in used:
            pool.cursor = (position + 1) % total
            return cidr
    raise NoPrefixLeft


def allocate_segment(session: Session) -> tuple[int, int]:
    """Allocate a free VNI, round robin; returns VNI and MTU. Raises NoSegmentLeft."""
    segments = session.scalars(select(SegmentRange).with_for_update()).one()
    used = set(session.scalars(select(Network.vni)))
    total = segments.last_vni - segments.first_vni + 1
    for step in range(total):
        vni = segments.first_vni + (segments.next_vni - segments.first_vni + step) % total
        if vni not in used:
            segments.next_vni = segments.first_vni + (vni - segments.first_vni + 1) % total
            return vni, segments.mtu
    raise NoSegmentLeft


def _nth(spans: list[tuple[IPv6Network, int]], position: int) -> IPv6Network:
    for prefix, count in spans:
        if position < count:
            found = ip_network((int(prefix.network_address) + (position << SUBNET_LENGTH), SUBNET_LENGTH))
            assert isinstance(found, IPv6Network)
            return found
        position -= count
    raise AssertionError("position is outside the pool")
