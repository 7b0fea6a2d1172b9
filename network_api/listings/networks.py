"""List query of networks: columns, filters, sort keys."""

from sqlalchemy import case, select

from network_api.errors import NetworkNotFound
from network_api.listings import listing
from network_api.models import Network, Subnet
from network_api.resources.networks import COLUMNS, VISIBLE

SUBNET_ID = Subnet.__table__.c.id
STATUS = case((COLUMNS.admin_state_up, "ACTIVE"), else_="DOWN")

NETWORKS = listing.Resource(
    query=select(Network.__table__, SUBNET_ID.label("subnet_id"), STATUS.label("status")).outerjoin_from(
        Network.__table__, Subnet.__table__
    ),
    key=COLUMNS.id,
    visible=VISIBLE,
    not_found=NetworkNotFound,
    filters={
        "id": listing.Equal(COLUMNS.id),
        "name": listing.Equal(COLUMNS.name),
        "description": listing.Equal(COLUMNS.description),
        "project_id": listing.Equal(COLUMNS.project_id),
        "tenant_id": listing.Equal(COLUMNS.project_id),
        "shared": listing.boolean_filter(COLUMNS.shared),
        "is_default": listing.boolean_filter(COLUMNS.is_default),
        "isolated": listing.boolean_filter(COLUMNS.isolated),
        "admin_state_up": listing.boolean_filter(COLUMNS.admin_state_up),
        "status": listing.Equal(STATUS),
        "mtu": listing.number(COLUMNS.mtu),
        "subnets": listing.Equal(SUBNET_ID),
        "provider:segmentation_id": listing.number(COLUMNS.vni),
        "provider:network_type": listing.constant("vxlan"),
        "provider:physical_network": listing.constant(None),
        "router:external": listing.constant(False),
        "port_security_enabled": listing.constant(True),
        "ipv4_address_scope": listing.constant(None),
        "ipv6_address_scope": listing.constant(None),
        "revision_number": listing.number(COLUMNS.revision_number),
        **listing.tag_filters(COLUMNS.tags),
    },
    sorts={
        "id": COLUMNS.id,
        "name": COLUMNS.name,
        "project_id": COLUMNS.project_id,
        "tenant_id": COLUMNS.project_id,
        "status": STATUS,
        "admin_state_up": COLUMNS.admin_state_up,
        "mtu": COLUMNS.mtu,
        "created_at": COLUMNS.created_at,
        "updated_at": COLUMNS.updated_at,
        "revision_number": COLUMNS.revision_number,
    },
)
