"""List query of subnet pools: columns, filters, sort keys."""

from sqlalchemy import select

from network_api.errors import SubnetPoolNotFound
from network_api.listings import listing
from network_api.models import SubnetPool
from network_api.resources.subnet_pools import COLUMNS, VISIBLE

SUBNET_POOLS = listing.Resource(
    query=select(SubnetPool.__table__),
    key=COLUMNS.id,
    visible=VISIBLE,
    not_found=SubnetPoolNotFound,
    filters={
        "id": listing.Equal(COLUMNS.id),
        "name": listing.Equal(COLUMNS.name),
        "description": listing.Equal(COLUMNS.description),
        "project_id": listing.Equal(COLUMNS.project_id),
        "tenant_id": listing.Equal(COLUMNS.project_id),
        "shared": listing.boolean_filter(COLUMNS.shared),
        "is_default": listing.boolean_filter(COLUMNS.is_default),
        "ip_version": listing.constant(6),
        "address_scope_id": listing.constant(None),
        "default_prefixlen": listing.constant(64),
        "min_prefixlen": listing.constant(64),
        "max_prefixlen": listing.constant(64),
        "revision_number": listing.number(COLUMNS.revision_number),
        **listing.tag_filters(COLUMNS.tags),
    },
    sorts={
        "id": COLUMNS.id,
        "name": COLUMNS.name,
        "project_id": COLUMNS.project_id,
        "tenant_id": COLUMNS.project_id,
        "created_at": COLUMNS.created_at,
        "updated_at": COLUMNS.updated_at,
        "revision_number": COLUMNS.revision_number,
    },
)
