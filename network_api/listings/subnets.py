"""List query of subnets: columns, filters, sort keys."""

from ipaddress import IPv6Address, IPv6Network

from sqlalchemy import func, select

from network_api.errors import SubnetNotFound
from network_api.listings import listing
from network_api.models import Subnet
from network_api.resources.subnets import COLUMNS, VISIBLE


def normalize_cidr(text: str) -> str:
    """Return the prefix in canonical form; other text is returned unchanged and matches nothing."""
    try:
        return str(IPv6Network(text, strict=False))
    except ValueError:
        return text


def normalize_address(text: str) -> str:
    """Return the address in canonical form; other text is returned unchanged and matches nothing."""
    try:
        return str(IPv6Address(text))
    except ValueError:
        return text


GATEWAY = func.coalesce(COLUMNS.gateway_ip, "")

SUBNETS = listing.Resource(
    query=select(Subnet.__table__),
    key=COLUMNS.id,
    visible=VISIBLE,
    not_found=SubnetNotFound,
    filters={
        "id": listing.Equal(COLUMNS.id),
        "name": listing.Equal(COLUMNS.name),
        "description": listing.Equal(COLUMNS.description),
        "project_id": listing.Equal(COLUMNS.project_id),
        "tenant_id": listing.Equal(COLUMNS.project_id),
        "network_id": listing.Equal(COLUMNS.network_id),
        "subnetpool_id": listing.Equal(COLUMNS.subnet_pool_id),
        "cidr": listing.Equal(COLUMNS.cidr, normalize_cidr),
        "gateway_ip": listing.Equal(COLUMNS.gateway_ip, normalize_address),
        "ip_version": listing.constant(6),
        "enable_dhcp": listing.constant(True),
        "ipv6_ra_mode": listing.constant("slaac"),
        "ipv6_address_mode": listing.constant("slaac"),
        "segment_id": listing.constant(None),
        "revision_number": listing.number(COLUMNS.revision_number),
        **listing.tag_filters(COLUMNS.tags),
    },
    sorts={
        "id": COLUMNS.id,
        "name": COLUMNS.name,
        "project_id": COLUMNS.project_id,
        "tenant_id": COLUMNS.project_id,
        "network_id": COLUMNS.network_id,
        "cidr": COLUMNS.cidr,
        "gateway_ip": GATEWAY,
        "created_at": COLUMNS.created_at,
        "updated_at": COLUMNS.updated_at,
        "revision_number": COLUMNS.revision_number,
    },
)
