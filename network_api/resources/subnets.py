"""Subnets: the /64 of a network, its gateway, name servers and host routes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from ipaddress import IPv6Address, IPv6Network
from typing import Any
from uuid import uuid4

from sqlalchemy import exists, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.caller import Caller
from app.core.errors import Conflict
from network_api import quotas
from network_api.addresses import eui64
from network_api.errors import InvalidInput, IpAddressInUse, SubnetExists, SubnetInUse, SubnetNotFound
from network_api.models import Network, Port, Subnet, SubnetPool
from network_api.prefixes import SUBNET_LENGTH, allocate_cidr
from network_api.visibility import CALLER_PROJECT, restrict_to_visible, visibility_parameters


class FirstAddress(Enum):
    """Type of FIRST_ADDRESS: the default gateway, the first usable address of the prefix."""

    ADDRESS = 1


FIRST_ADDRESS = FirstAddress.ADDRESS
NETWORKS = Network.__table__.c
COLUMNS = Subnet.__table__.c

VISIBLE = or_(COLUMNS.project_id == CALLER_PROJECT, COLUMNS.network_id.in_(select(NETWORKS.id).where(NETWORKS.shared)))
"""Subnets of the caller's project and of shared networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSubnet:
    """Attributes of a new subnet. Without a `cidr` the pool allocates one."""

    network: Network
    pool: SubnetPool | None
    cidr: IPv6Network | None = None
    gateway: IPv6Address | FirstAddress | None = FIRST_ADDRESS
    name: str = ""
    description: str = ""
    dns_nameservers: Sequence[str] = ()
    host_routes: Sequence[Mapping[str, str]] = ()
    tags: Sequence[str] = ()


def find(session: Session, caller: Caller, subnet_id: str, *, lock: bool = False) -> Subnet:
    """Return a subnet; `lock` selects it FOR UPDATE. Raises SubnetNotFound when it is missing or not visible."""
    query = select(Subnet).where(Subnet.id == subnet_id)
    if lock:
        query = query.with_for_update()
    subnet = session.scalar(restrict_to_visible(caller, query, VISIBLE), visibility_parameters(caller))
    if subnet is None:
        raise SubnetNotFound(subnet_id)
    return subnet


def create(session: Session, now: datetime, new: NewSubnet) -> Subnet:
    """Create the network's subnet with the given /64 or the next one of the pool. Without a gateway it is not routed.

    Ports without an address get one. Raises SubnetExists, OverQuota, NoPrefixLeft, InvalidInput.
    """
    network, cidr = new.network, new.cidr
    if network.subnet is not None:
        if cidr is not None and cidr.overlaps(IPv6Network(network.subnet.cidr)):
            raise _overlap_error(cidr, network.id)
        raise SubnetExists(network.id)
    quotas.reserve(session, network.project_id, "subnet")
    if cidr is None:
        assert new.pool is not None
        cidr = allocate_cidr(session, new.pool)
    else:
        _check_free(session, cidr, network.id)
    subnet = Subnet(
        id=str(uuid4()),
        network_id=network.id,
        project_id=network.project_id,
        subnet_pool_id=new.pool.id if new.pool else None,
        name=new.name,
        description=new.description,
        cidr=str(cidr),
        gateway_ip=_resolve_gateway(cidr, new.gateway),
        dns_nameservers=list(new.dns_nameservers),
        host_routes=_normalize_routes(cidr, new.host_routes),
        tags=list(new.tags),
        created_at=now,
        updated_at=now,
    )
    session.flush()
    try:
        with session.begin_nested():
            network.subnet = subnet
            session.flush()
    except IntegrityError:
        raise _overlap_error(cidr, network.id) from None
    for port in session.scalars(select(Port).where(Port.network_id == network.id, Port.ip_address.is_(None))):
        port.subnet_id, port.ip_address = subnet.id, str(eui64(cidr, port.mac_address))
    session.flush()
    return subnet


def change(session: Session, now: datetime, subnet: Subnet, changes: Mapping[str, Any]) -> None:
    """Set name, description, dns_nameservers, host_routes, tags or gateway_ip.

    Raises SubnetInUse for another gateway while servers have ports on the subnet, InvalidInput, IpAddressInUse.
    """
    gateway = _resolve_gateway(IPv6Network(subnet.cidr), changes["gateway_ip"]) if "gateway_ip" in changes else None
    if "gateway_ip" in changes and gateway != subnet.gateway_ip:
        if session.scalar(select(exists().where(Port.subnet_id == subnet.id, Port.device_id != ""))):
            raise SubnetInUse(subnet.id)
        if gateway and session.scalar(select(exists().where(Port.ip_address == gateway))):
            raise IpAddressInUse(gateway, subnet.id)
    plain = {**changes}
    if "gateway_ip" in changes:
        plain["gateway_ip"] = gateway
    if "host_routes" in changes:
        plain["host_routes"] = _normalize_routes(IPv6Network(subnet.cidr), changes["host_routes"])
    for name, value in plain.items():
        setattr(subnet, name, value)
    subnet.updated_at = now
    session.flush()


def delete(session: Session, network: Network, subnet: Subnet) -> None:
    """Delete the subnet; unbound ports lose their address.

    Raises SubnetInUse while bound ports have addresses of it, Conflict for the default network's subnet.
    """
    if network.is_default:
        raise Conflict("The default network's subnet cannot be deleted: servers that name no network are put on it.")
    if session.scalar(select(exists().where(Port.subnet_id == subnet.id, Port.device_id != ""))):
        raise SubnetInUse(subnet.id)
    session.execute(
        update(Port)
        .where(Port.subnet_id == subnet.id)
        .values(subnet_id=None, ip_address=None, revision_number=Port.revision_number + 1)
        .execution_options(synchronize_session=False)
    )
    network.subnet = None
    session.flush()


def _check_free(session: Session, cidr: IPv6Network, network_id: str) -> None:
    if cidr.prefixlen != SUBNET_LENGTH:
        raise InvalidInput(f"{cidr} is not a /{SUBNET_LENGTH}, which SLAAC requires.")
    if cidr.is_multicast or cidr.is_link_local or cidr.is_loopback or cidr.is_unspecified:
        raise InvalidInput(f"{cidr} is not a prefix of unicast addresses that servers can use.")
    if session.scalar(select(exists().where(Subnet.cidr == str(cidr)))):
        raise _overlap_error(cidr, network_id)


def _overlap_error(cidr: IPv6Network, network_id: str) -> InvalidInput:
    return InvalidInput(f"Requested subnet with cidr: {cidr} for network: {network_id} overlaps with another subnet.")


def _normalize_routes(cidr: IPv6Network, routes: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the host routes as stored. Raises InvalidInput for duplicates and unusable routes."""
    kept: list[dict[str, str]] = []
    for route in routes:
        destination, nexthop = IPv6Network(route["destination"]), IPv6Address(route["nexthop"])
        if nexthop not in cidr or nexthop == cidr[0]:
            raise InvalidInput(f"Next hop {nexthop} of a host route is not an address on subnet {cidr}.")
        special = destination.is_multicast or destination.is_link_local or destination.prefixlen == 0
        if special or destination.subnet_of(cidr):
            raise InvalidInput(f"{destination} cannot be the destination of a host route on subnet {cidr}.")
        found = {"destination": str(destination), "nexthop": str(nexthop)}
        if found in kept:
            raise InvalidInput(f"Duplicate hostroute '{found}'.")
        kept.append(found)
    return kept


def _resolve_gateway(cidr: IPv6Network, wanted: IPv6Address | FirstAddress | None) -> str | None:
    if wanted is None:
        return None
    if isinstance(wanted, FirstAddress):
        return str(cidr[1])
    if wanted not in cidr or wanted == cidr[0]:
        raise InvalidInput(f"Gateway {wanted} is not a valid address on subnet {cidr}.")
    return str(wanted)
