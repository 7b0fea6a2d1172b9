"""Networks: lookup, default network of a server, create, change, delete. Each network is one VXLAN segment."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import Session

from app.core.caller import Caller
from app.core.errors import Conflict
from network_api import quotas
from network_api.errors import NetworkAmbiguous, NetworkInUse, NetworkNotFound, NetworkShared
from network_api.models import Network, Port
from network_api.prefixes import allocate_segment
from network_api.server_revisions import touch_servers
from network_api.visibility import CALLER_PROJECT, restrict_to_visible, visibility_parameters

COLUMNS = Network.__table__.c

VISIBLE = or_(COLUMNS.project_id == CALLER_PROJECT, COLUMNS.shared)
"""Networks of the caller's project and shared networks."""

_OWN = and_(COLUMNS.project_id == CALLER_PROJECT, ~COLUMNS.shared, COLUMNS.admin_state_up, Network.subnet.has())
_OWN_OR_DEFAULT = select(Network).where(or_(_OWN, COLUMNS.is_default)).order_by(COLUMNS.is_default).limit(3)
"""The default network and the project's own ones; three rows suffice to detect ambiguity."""


def find(session: Session, caller: Caller, network_id: str, *, lock: bool = False) -> Network:
    """Return a network; `lock` selects it FOR UPDATE. Raises NetworkNotFound when it is missing or not visible."""
    query = select(Network).where(Network.id == network_id)
    if lock:
        query = query.with_for_update(of=Network)
    network = session.scalar(restrict_to_visible(caller, query, VISIBLE), visibility_parameters(caller))
    if network is None:
        raise NetworkNotFound(network_id)
    return network


def get_network_of_port(session: Session, port: Port) -> Network:
    """Return the port's network, which may no longer be visible to the port's owner."""
    return session.get_one(Network, port.network_id)


def list_visible(session: Session, caller: Caller) -> list[Network]:
    """Return the networks that the caller may see, oldest first."""
    query = select(Network).order_by(Network.created_at, Network.id)
    return list(session.scalars(restrict_to_visible(caller, query, VISIBLE), visibility_parameters(caller)))


def default_network(session: Session, caller: Caller) -> Network:
    """Return the network of a server that names none: the project's own network, or else the shared default.

    Networks without a subnet are ignored. Raises NetworkAmbiguous when the project has several.
    """
    found = session.scalars(_OWN_OR_DEFAULT, visibility_parameters(caller)).all()
    own = [one for one in found if one.project_id == caller.project and not one.shared]
    if len(own) > 1:
        raise NetworkAmbiguous
    if not found:
        raise NetworkNotFound("public")
    return (own or found)[0]


def create(
    session: Session,
    now: datetime,
    *,
    project_id: str,
    name: str = "",
    description: str = "",
    admin_state_up: bool = True,
    shared: bool = False,
    isolated: bool = False,
    tags: Sequence[str] = (),
) -> Network:
    """Create a network with a new segment and without a subnet. Raises OverQuota, NoSegmentLeft."""
    quotas.reserve(session, project_id, "network")
    vni, mtu = allocate_segment(session)
    network = Network(
        id=str(uuid4()),
        project_id=project_id,
        name=name,
        description=description,
        shared=shared,
        is_default=False,
        vni=vni,
        mtu=mtu,
        isolated=isolated,
        admin_state_up=admin_state_up,
        tags=list(tags),
        created_at=now,
        updated_at=now,
    )
    session.add(network)
    session.flush()
    return network


def change(session: Session, now: datetime, network: Network, changes: Mapping[str, Any]) -> None:
    """Set name, description, admin_state_up, shared, isolated or tags.

    Raises NetworkInUse when a network with servers would be set down, as hosts do not enforce the state; NetworkShared
    when sharing would end while other projects have ports on the network; Conflict for either on the default network.
    """
    if network.admin_state_up and not changes.get("admin_state_up", True):
        _refuse_default(network)
        if session.scalar(select(exists().where(Port.network_id == network.id, Port.device_id != ""))):
            raise NetworkInUse(network.id)
    if network.shared and not changes.get("shared", True):
        _refuse_default(network)
        if session.scalar(select(exists().where(Port.network_id == network.id, Port.project_id != network.project_id))):
            raise NetworkShared(network.id)
    renamed = changes.get("name", network.name) != network.name
    for name, value in changes.items():
        setattr(network, name, value)
    network.updated_at = now
    session.flush()
    if renamed:
        touch_servers(session, Port.network_id == network.id)


def delete(session: Session, network: Network) -> None:
    """Delete the network and its subnet. Raises NetworkInUse while it has ports, Conflict for the default network."""
    _refuse_default(network)
    if session.scalar(select(exists().where(Port.network_id == network.id))):
        raise NetworkInUse(network.id)
    session.delete(network)
    session.flush()


def _refuse_default(network: Network) -> None:
    if network.is_default:
        raise Conflict("The default network cannot be changed or deleted: servers that name no network are put on it.")
