"""Response documents of networks."""

from typing import Any

from sqlalchemy import Row

from network_api.views.times import format_time


def network(row: Row[Any], *, provider: bool) -> dict[str, Any]:
    """Render a row of `listings.networks.NETWORKS`. `provider` adds the segment, for operators."""
    body = {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "tenant_id": row.project_id,
        "project_id": row.project_id,
        "admin_state_up": row.admin_state_up,
        "status": row.status,
        "mtu": row.mtu,
        "shared": row.shared,
        "isolated": row.isolated,
        "is_default": row.is_default,
        "router:external": False,
        "port_security_enabled": True,
        "subnets": [row.subnet_id] if row.subnet_id else [],
        "availability_zone_hints": [],
        "availability_zones": [],
        "ipv4_address_scope": None,
        "ipv6_address_scope": None,
        "tags": row.tags,
        "created_at": format_time(row.created_at),
        "updated_at": format_time(row.updated_at),
        "revision_number": row.revision_number,
    }
    if provider:
        body["provider:network_type"] = "vxlan"
        body["provider:physical_network"] = None
        body["provider:segmentation_id"] = row.vni
    return body
