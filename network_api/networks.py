"""Networks a project may use: its own, and the shared ones."""

from sqlalchemy import or_, select
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from app.caller import Caller
from network_api.errors import NetworkAmbiguous, NetworkNotFound
from network_api.models import Network


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
