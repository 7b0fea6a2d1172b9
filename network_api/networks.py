"""Networks a project may use: its own, and the shared ones."""

from sqlalchemy import case, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from app.caller import Caller
from network_api import listing
from network_api.errors import NetworkAmbiguous, NetworkNotFound
from network_api.models import Network, Subnet


def visible(caller: Caller) -> ColumnElement[bool] | None:
    """The condition that keeps other projects' networks out; None for an admin, who sees all."""
    if caller.is_admin:
        return None
    return or_(Network.project_id == caller.project, Network.shared)


def find(session: Session, caller: Caller, network_id: str) -> Network:
    """The network. Raises NetworkNotFound when there is none that the caller may see."""
    query = select(Network).where(Network.id == network_id)
    condition = visible(caller)
    network = session.scalar(query if condition is None else query.where(condition))
    if network is None:
        raise NetworkNotFound(network_id)
    return network


def default_network(session: Session, caller: Caller) -> Network:
    """The network of a server that names none: the project's own one, or else the shared default.

    Networks without a subnet do not count. Raises NetworkAmbiguous when the project has several.
    """
    own = session.scalars(
        select(Network)
        .where(Network.project_id == caller.project, ~Network.shared, Network.admin_state_up, Network.subnet.has())
        .limit(2)
    ).all()
    if len(own) > 1:
        raise NetworkAmbiguous
    if own:
        return own[0]
    network = session.scalar(select(Network).where(Network.is_default))
    if network is None:
        raise NetworkNotFound("public")
    return network


COLUMNS = Network.__table__.c
STATUS = case((Network.admin_state_up, "ACTIVE"), else_="DOWN")

NETWORKS = listing.Resource(
    query=select(Network.__table__, Subnet.id.label("subnet_id"), STATUS.label("status")).outerjoin(
        Subnet, Subnet.network_id == Network.id
    ),
    key=COLUMNS.id,
    visible=visible,
    not_found=NetworkNotFound,
    filters={
        "id": listing.text(COLUMNS.id),
        "name": listing.text(COLUMNS.name),
        "description": listing.text(COLUMNS.description),
        "project_id": listing.text(COLUMNS.project_id),
        "tenant_id": listing.text(COLUMNS.project_id),
        "shared": listing.boolean(COLUMNS.shared),
        "is_default": listing.boolean(COLUMNS.is_default),
        "admin_state_up": listing.boolean(COLUMNS.admin_state_up),
        "status": listing.text(STATUS),
        "mtu": listing.number(COLUMNS.mtu),
        "subnets": listing.text(Subnet.__table__.c.id),
        "provider:segmentation_id": listing.number(COLUMNS.vni),
        "provider:network_type": listing.constant("vxlan"),
        "provider:physical_network": listing.constant(None),
        "router:external": listing.constant(False),
        "port_security_enabled": listing.constant(True),
        "ipv4_address_scope": listing.constant(None),
        "ipv6_address_scope": listing.constant(None),
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
    },
)
"""What can be read of networks, and how."""
