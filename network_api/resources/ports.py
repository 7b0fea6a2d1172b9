"""Ports: create, bind to a server, change, release; network interfaces of servers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Network
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, func, or_, select, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.addresses import parse_ipv6_address
from app.core.caller import Caller
from app.core.errors import BadRequest, Forbidden
from network_api import quotas
from network_api.addresses import eui64, normalize_mac, random_mac
from network_api.errors import (
    InvalidInput,
    IpAddressInUse,
    Ipv4AddressInUse,
    MacAddressInUse,
    NetworkRequiresSubnet,
    PortBound,
    PortInUse,
    PortNotFound,
)
from network_api.models import Network, Port, Subnet
from network_api.prefixes import is_local
from network_api.server_revisions import touch_servers
from network_api.visibility import CALLER_PROJECT, restrict_to_visible, visibility_parameters

ACTIVE = "ACTIVE"
BUILD = "BUILD"
DOWN = "DOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """Network interface of a server: a port with the attributes of its network and subnet.

    `addresses` include the prefix length, as in 2001:db8::1/64. `dns_servers` is empty if the subnet has none.
    `allowed` are allowed address pairs: MAC, and address or prefix. `ipv4_address` is mapped to the first address.
    `isolated` networks block traffic between guests. `prefix_by_user` marks a ULA outside of all pools. `routes` are
    pairs of an IPv6 destination and next hop.
    """

    port_id: str
    network_id: str
    network_name: str
    vni: int
    mtu: int
    mac: str
    addresses: tuple[str, ...]
    gateway: str | None
    dns_servers: tuple[str, ...]
    subnet_id: str | None
    status: str
    allowed: tuple[tuple[str, str], ...] = ()
    ipv4_address: str | None = None
    isolated: bool = False
    prefix_by_user: bool = False
    routes: tuple[tuple[str, str], ...] = ()


AddressPair = tuple[IPv6Network, str | None]
"""Allowed source address or prefix, and MAC; None is the port's MAC."""
CHECKED_FIELDS = frozenset({"mac_address", "ip_address", "pairs", "ipv4_address"})
"""Fields that `change` validates or converts."""

NETWORKS = Network.__table__.c
COLUMNS = Port.__table__.c

VISIBLE = or_(
    COLUMNS.project_id == CALLER_PROJECT,
    COLUMNS.network_id.in_(select(NETWORKS.id).where(NETWORKS.project_id == CALLER_PROJECT)),
)
"""Ports of the caller's project and all ports on its networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPort:
    """Attributes of a new port. `addressed` is False for a port without an address; `pairs` are allowed addresses."""

    project_id: str
    network: Network
    device_id: str = ""
    device_owner: str = ""
    host: str | None = None
    mac: str | None = None
    address: str | None = None
    name: str = ""
    description: str = ""
    admin_state_up: bool = True
    addressed: bool = True
    pairs: Sequence[AddressPair] = ()
    ipv4_address: IPv4Address | None = None
    tags: Sequence[str] = ()


def find(session: Session, caller: Caller, port_id: str, *, lock: bool = False) -> Port:
    """Return a port; `lock` selects it FOR UPDATE. Raises PortNotFound when it is missing or not visible."""
    query = select(Port).where(Port.id == port_id)
    if lock:
        query = query.with_for_update()
    port = session.scalar(restrict_to_visible(caller, query, VISIBLE), visibility_parameters(caller))
    if port is None:
        raise PortNotFound(port_id)
    return port


def create(session: Session, now: datetime, new: NewPort, *, chooser: Caller | None = None) -> Port:
    """Create a port; with a `device_id` it belongs to that server and is deleted with it.

    The default MAC is random; the default address is the network's prefix and the EUI-64 of the MAC, or none when not
    `addressed`. Nothing is written until the session flushes, so a thousand ports are one INSERT. Raises InvalidInput,
    MacAddressInUse, IpAddressInUse, OverQuota, and for a server's port on a network without a subnet or that is down
    NetworkRequiresSubnet or BadRequest. With a `chooser`, raises Forbidden for a chosen MAC or address on another
    project's network, where clients may still expect another server at the address.
    """
    network = new.network
    if chooser and (new.mac or new.address) and not chooser.is_admin and chooser.project != network.project_id:
        raise Forbidden(f"Only its owner may choose addresses on network {network.id}.")
    if new.device_id and network.subnet is None:
        raise NetworkRequiresSubnet(network.id)
    if new.device_id and not network.admin_state_up:
        raise BadRequest(f"Network {network.id} is administratively down.")
    quotas.reserve(session, new.project_id, "port")
    chosen = normalize_mac(new.mac) if new.mac else random_mac()
    port = Port(
        id=str(uuid4()),
        network_id=network.id,
        subnet_id=network.subnet.id if network.subnet and new.addressed else None,
        project_id=new.project_id,
        name=new.name,
        description=new.description,
        device_id=new.device_id,
        device_owner=new.device_owner,
        attached=_next_attach_order(session, now) if new.device_id else 0,
        of_server=bool(new.device_id),
        mac_address=chosen,
        ip_address=_resolve_address(network, chosen, new.address) if new.addressed else None,
        allowed_address_pairs=_normalize_pairs(network, chosen, new.pairs),
        ipv4_address=_claim_ipv4(session, new.ipv4_address, None),
        status=BUILD if new.device_id else DOWN,
        binding_host=new.host,
        admin_state_up=new.admin_state_up,
        tags=list(new.tags),
        created_at=now,
        updated_at=now,
    )
    if new.mac or new.address:
        _insert_alone(session, port)
    else:
        session.add(port)
    return port


def bind(session: Session, now: datetime, port_id: str, caller: Caller, *, device_id: str, host: str | None) -> Port:
    """Bind an existing port to a server; it is kept when the server is deleted.

    Raises PortNotFound, PortInUse, and BadRequest for a port that is down or has no address.
    """
    port = find(session, caller, port_id)
    if not caller.is_admin and port.project_id != caller.project:
        raise PortNotFound(port_id)
    if not port.admin_state_up:
        raise BadRequest(f"Port {port_id} is administratively down.")
    if port.ip_address is None:
        raise BadRequest(f"Port {port_id} requires a FixedIP in order to be used.")
    claim = (
        update(Port)
        .where(Port.id == port.id, Port.device_id == "", Port.admin_state_up)
        .values(
            device_id=device_id,
            device_owner="compute:nova",
            binding_host=host,
            attached=_next_attach_order(session, now),
            of_server=False,
            status=BUILD,
            updated_at=now,
            revision_number=Port.revision_number + 1,
        )
        .returning(Port.id)
        .execution_options(synchronize_session=False)
    )
    if session.scalar(claim) is None:
        raise PortInUse(port.id, port.device_id)
    session.refresh(port)
    return port


def list_servers(session: Session, *, network_id: str | None = None, subnet_id: str | None = None) -> list[str]:
    """Return the ids of the servers with a port on a network or subnet."""
    query = select(Port.device_id).where(Port.device_id != "").distinct()
    if network_id is not None:
        query = query.where(Port.network_id == network_id)
    if subnet_id is not None:
        query = query.where(Port.subnet_id == subnet_id)
    return list(session.scalars(query))


def set_status(session: Session, device_id: str, active: bool) -> None:
    """Set the status of the server's ports to ACTIVE or DOWN; ports that are administratively down stay DOWN."""
    status = ACTIVE if active else DOWN
    may_change = Port.admin_state_up if active else true()
    session.execute(
        update(Port)
        .where(Port.device_id == device_id, Port.status != status, may_change)
        .values(status=status, revision_number=Port.revision_number + 1)
        .execution_options(synchronize_session=False)
    )


def rebind(session: Session, device_id: str, host: str | None) -> None:
    """Set the binding host of the server's ports."""
    session.execute(
        update(Port)
        .where(Port.device_id == device_id)
        .values(binding_host=host, revision_number=Port.revision_number + 1)
        .execution_options(synchronize_session=False)
    )


def release(session: Session, now: datetime, device_id: str, port_id: str | None = None) -> None:
    """Delete the server's ports that were created for it and unbind the others: all of them, or one. Idempotent."""
    released = Port.device_id == device_id
    if port_id is not None:
        released &= Port.id == port_id
    touch_servers(session, released)
    session.execute(delete(Port).where(released, Port.of_server).execution_options(synchronize_session=False))
    session.execute(
        update(Port)
        .where(released)
        .values(
            device_id="",
            device_owner="",
            binding_host=None,
            attached=0,
            status=DOWN,
            updated_at=now,
            revision_number=Port.revision_number + 1,
        )
        .execution_options(synchronize_session=False)
    )


def change(session: Session, now: datetime, port: Port, network: Network, changes: Mapping[str, Any]) -> None:
    """Set name, description, device_owner, tags, admin_state_up, binding_host, mac_address, ip_address, pairs or
    ipv4_address.

    A new MAC changes the address if the old one was the EUI-64 of the old MAC. An `ip_address` of None removes the
    address, "" derives it from the MAC. Raises PortBound for a new state, MAC or address of a bound port, InvalidInput,
    MacAddressInUse, IpAddressInUse, Ipv4AddressInUse.
    """
    plain = {name: value for name, value in changes.items() if name not in CHECKED_FIELDS}
    mac = normalize_mac(changes["mac_address"]) if changes.get("mac_address") else port.mac_address
    address = port.ip_address
    if "ip_address" in changes:
        wanted = changes["ip_address"]
        address = None if wanted is None else _resolve_address(network, mac, wanted or None)
    elif mac != port.mac_address and address and address == _resolve_address(network, port.mac_address, None):
        address = _resolve_address(network, mac, None)
    moved = (mac, address) != (port.mac_address, port.ip_address)
    turned = plain.get("admin_state_up", port.admin_state_up) != port.admin_state_up
    if port.device_id and (moved or turned):
        raise PortBound(port.id, port.device_id)
    if moved:
        _check_free(session, port, mac, address)
        port.mac_address, port.ip_address = mac, address
        port.subnet_id = network.subnet.id if network.subnet and address else None
    if "pairs" in changes:
        port.allowed_address_pairs = _normalize_pairs(network, port.mac_address, changes["pairs"])
    if "ipv4_address" in changes:
        port.ipv4_address = _claim_ipv4(session, changes["ipv4_address"], port.id)
    for name, value in plain.items():
        setattr(port, name, value)
    port.updated_at = now
    session.flush()
    if "ipv4_address" in changes:
        touch_servers(session, Port.id == port.id)


def remove(session: Session, port: Port) -> None:
    """Delete the port. Raises PortInUse while it is bound: the guest would keep an address that is free for others."""
    if port.device_id:
        raise PortInUse(port.id, port.device_id)
    session.delete(port)
    session.flush()


NICS = (
    select(
        Port.device_id,
        Port.id,
        Port.network_id,
        Network.name,
        Network.vni,
        Network.mtu,
        Port.mac_address,
        Port.ip_address,
        Subnet.gateway_ip,
        Subnet.dns_nameservers,
        Port.subnet_id,
        Port.status,
        Port.allowed_address_pairs,
        Port.ipv4_address,
        Network.isolated,
        Subnet.cidr,
        Subnet.subnet_pool_id,
        Subnet.host_routes,
    )
    .join(Network, Network.id == Port.network_id)
    .outerjoin(Subnet, Subnet.id == Port.subnet_id)
    .order_by(Port.device_id, Port.attached, Port.id)
)


def list_nics(session: Session, device_ids: Iterable[str]) -> dict[str, list[Nic]]:
    """Return the interfaces of each server in attachment order, with one query; servers without any are left out."""
    found: dict[str, list[Nic]] = {}
    rows = session.execute(NICS.where(Port.device_id.in_([*device_ids])))
    for row in rows:
        device_id, port_id, network_id, name, vni, mtu, mac, address, gateway, dns, subnet_id, status, *more = row
        pairs, ipv4_address, isolated, cidr, pool_id, routes = more
        nic = Nic(
            port_id=port_id,
            network_id=network_id,
            network_name=name,
            vni=vni,
            mtu=mtu,
            mac=mac,
            addresses=(f"{address}/64",) if address else (),
            gateway=gateway,
            dns_servers=tuple(dns or ()),
            subnet_id=subnet_id,
            status=status,
            allowed=tuple((pair["mac_address"], pair["ip_address"]) for pair in pairs),
            ipv4_address=ipv4_address,
            isolated=isolated,
            routes=tuple((route["destination"], route["nexthop"]) for route in routes or ()),
            prefix_by_user=cidr is not None and pool_id is None and is_local(IPv6Network(cidr)),
        )
        found.setdefault(device_id, []).append(nic)
    return found


def _resolve_address(network: Network, mac: str, wanted: str | None) -> str | None:
    subnet = network.subnet
    if subnet is None:
        if wanted:
            raise InvalidInput(f"IP address {wanted} is not a valid IP for any of the subnets on the network.")
        return None
    prefix = IPv6Network(subnet.cidr)
    if wanted is None:
        return str(eui64(prefix, mac))
    try:
        address = parse_ipv6_address(wanted)
    except ValueError:
        raise InvalidInput(f"'{wanted}' is not an IPv6 address; networks have IPv6 only.") from None
    if address not in prefix or address == prefix.network_address:
        raise InvalidInput(f"IP address {wanted} is not a valid IP for the specified subnet {subnet.id}.")
    if str(address) == subnet.gateway_ip:
        raise IpAddressInUse(str(address), subnet.id)
    return str(address)


def _normalize_pairs(network: Network, mac: str, pairs: Sequence[AddressPair]) -> list[dict[str, str]]:
    """Return the pairs as stored. Raises InvalidInput for duplicates and addresses outside the network's /64."""
    if pairs and network.subnet is None:
        raise InvalidInput("A port on a network without a subnet cannot have allowed address pairs.")
    kept = []
    for prefix, other in pairs:
        assert network.subnet is not None
        if not prefix.subnet_of(IPv6Network(network.subnet.cidr)):
            raise InvalidInput(f"Allowed address {prefix} is not in the network's prefix, {network.subnet.cidr}.")
        address = str(prefix.network_address if prefix.prefixlen == prefix.max_prefixlen else prefix)
        pair = {"mac_address": normalize_mac(other) if other else mac, "ip_address": address}
        if pair in kept:
            raise InvalidInput(f"Request contains duplicate address pair: {pair['mac_address']} {address}.")
        kept.append(pair)
    return kept


def _claim_ipv4(session: Session, address: IPv4Address | None, port_id: str | None) -> str | None:
    """Return the address as stored. Raises Ipv4AddressInUse when another port has it."""
    if address is None:
        return None
    query = select(Port.id).where(Port.ipv4_address == str(address), Port.id != (port_id or ""))
    if session.scalar(query):
        raise Ipv4AddressInUse(str(address))
    return str(address)


def _insert_alone(session: Session, port: Port) -> None:
    """Insert a port with a chosen MAC or address in a savepoint. Raises MacAddressInUse, IpAddressInUse."""
    session.flush()
    try:
        with session.begin_nested():
            session.add(port)
            session.flush()
    except IntegrityError:
        taken = session.scalar(select(func.count()).where(Port.mac_address == port.mac_address))
        if taken or port.subnet_id is None:
            raise MacAddressInUse(port.network_id, port.mac_address) from None
        raise IpAddressInUse(str(port.ip_address), port.subnet_id) from None


def _check_free(session: Session, port: Port, mac: str, address: str | None) -> None:
    """Check that no other port has the MAC or address. Raises MacAddressInUse, IpAddressInUse."""
    others = select(Port.mac_address).where(Port.id != port.id)
    if session.scalar(others.where(Port.mac_address == mac)):
        raise MacAddressInUse(port.network_id, mac)
    if address and session.scalar(others.where(Port.ip_address == address)):
        raise IpAddressInUse(address, port.subnet_id or "")


def _next_attach_order(session: Session, now: datetime) -> int:
    """Return a number that increases with time and within a transaction; it orders the interfaces of a server."""
    turn: int = session.info.get("network_turn", 0)
    session.info["network_turn"] = turn + 1
    return int(now.timestamp() * 1_000_000) + turn
