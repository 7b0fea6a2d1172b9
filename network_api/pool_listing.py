"""What can be read of subnet pools, and how."""

from sqlalchemy import select

from network_api import listing
from network_api.errors import SubnetPoolNotFound
from network_api.models import SubnetPool
from network_api.pools import visible

COLUMNS = SubnetPool.__table__.c

SUBNET_POOLS = listing.Resource(
    query=select(SubnetPool.__table__),
    key=COLUMNS.id,
    visible=visible,
    not_found=SubnetPoolNotFound,
    filters={
        "id": listing.text(COLUMNS.id),
        "name": listing.text(COLUMNS.name),
        "description": listing.text(COLUMNS.description),
        "project_id": listing.text(COLUMNS.project_id),
        "tenant_id": listing.text(COLUMNS.project_id),
        "shared": listing.boolean(COLUMNS.shared),
        "is_default": listing.boolean(COLUMNS.is_default),
        "ip_version": listing.constant(6),
        "address_scope_id": listing.constant(None),
        "default_prefixlen": listing.constant(64),
        "min_prefixlen": listing.constant(64),
        "max_prefixlen": listing.constant(64),
        **listing.tag_filters(COLUMNS.tags),
    },
    sorts={
        "id": COLUMNS.id,
        "name": COLUMNS.name,
        "project_id": COLUMNS.project_id,
        "tenant_id": COLUMNS.project_id,
        "created_at": COLUMNS.created_at,
        "updated_at": COLUMNS.updated_at,
    },
)
