"""Response documents of subnets."""

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from sqlalchemy import Row

from network_api.views.times import format_time


def subnet(row: Row[Any]) -> dict[str, Any]:
    """Render a row of `listings.subnets.SUBNETS`."""
    return {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "tenant_id": row.project_id,
        "project_id": row.project_id,
        "network_id": row.network_id,
        "ip_version": 6,
        "cidr": row.cidr,
        "subnetpool_id": row.subnet_pool_id,
        "gateway_ip": row.gateway_ip,
        "allocation_pools": allocation_pools(row.cidr, row.gateway_ip),
        "enable_dhcp": True,
        "ipv6_ra_mode": "slaac",
        "ipv6_address_mode": "slaac",
        "dns_nameservers": row.dns_nameservers,
        "host_routes": row.host_routes,
        "service_types": [],
        "segment_id": None,
        "tags": row.tags,
        "created_at": format_time(row.created_at),
        "updated_at": format_time(row.updated_at),
        "revision_number": row.revision_number,
    }


@lru_cache(maxsize=4096)
def allocation_pools(cidr: str, gateway: str | None) -> list[dict[str, str]]:
    """Return the ranges of the prefix without its first address and the gateway."""
    prefix = IPv6Network(cidr)
    first, last = prefix[1], prefix[-1]
    if gateway is None:
        return [_pool(first, last)]
    taken = IPv6Address(gateway)
    return [
        _pool(start, end) for start, end in ((first, taken - 1), (taken + 1, last)) if first <= start <= end <= last
    ]


def _pool(start: IPv6Address, end: IPv6Address) -> dict[str, str]:
    return {"start": str(start), "end": str(end)}
