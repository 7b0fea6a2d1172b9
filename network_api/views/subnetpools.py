"""Response documents of subnet pools."""

from typing import Any

from sqlalchemy import Row

from network_api.prefixes import SUBNET_LENGTH
from network_api.views.times import format_time


def subnetpool(row: Row[Any]) -> dict[str, Any]:
    """Render a row of `listings.subnet_pools.SUBNET_POOLS`."""
    return {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "tenant_id": row.project_id,
        "project_id": row.project_id,
        "ip_version": 6,
        "prefixes": row.prefixes,
        "default_prefixlen": SUBNET_LENGTH,
        "min_prefixlen": SUBNET_LENGTH,
        "max_prefixlen": SUBNET_LENGTH,
        "default_quota": None,
        "address_scope_id": None,
        "shared": row.shared,
        "is_default": row.is_default,
        "tags": row.tags,
        "created_at": format_time(row.created_at),
        "updated_at": format_time(row.updated_at),
        "revision_number": row.revision_number,
    }
