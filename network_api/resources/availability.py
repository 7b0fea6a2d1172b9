"""Number of used addresses per network (Neutron: network-ip-availability)."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from network_api.models import Network, Port, Subnet
from network_api.prefixes import SUBNET_LENGTH

TOTAL = 2 ** (128 - SUBNET_LENGTH) - 2
"""Addresses of a /64 that ports can have: all except the first one and the gateway."""


@dataclass(frozen=True, slots=True)
class Availability:
    """Address usage of a network with a subnet."""

    network_id: str
    network_name: str
    project_id: str
    subnet_id: str
    subnet_name: str
    cidr: str
    used: int


def list_availabilities(session: Session, network_id: str | None = None) -> list[Availability]:
    """Return the usage of all networks with a subnet, or of one network."""
    query = (
        select(
            Network.id,
            Network.name,
            Network.project_id,
            Subnet.id,
            Subnet.name,
            Subnet.cidr,
            select(func.count()).where(Port.subnet_id == Subnet.id).scalar_subquery(),
        )
        .join(Subnet, Subnet.network_id == Network.id)
        .order_by(Network.id)
    )
    if network_id is not None:
        query = query.where(Network.id == network_id)
    return [Availability(*row) for row in session.execute(query)]
