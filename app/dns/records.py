"""DNS records of servers: AAAA records of hostname.zone and PTR records of their addresses.

    web.cloud.example.  AAAA  2001:db8:1000::…      and      ….ip6.arpa.  PTR  web.cloud.example.

Of several servers with the same hostname the oldest gets the plain name. The others, and servers whose name has other
records in the zone, get a suffix: the first characters of the server's id.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from sqlalchemy import select
from sqlalchemy.orm import Session

from compute_api.models import Server
from network_api.models import Port, Subnet, SubnetPool

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SUFFIX = 8


@dataclass(frozen=True, slots=True)
class NamedServer:
    """Id, hostname and routed addresses of a server."""

    id: str
    hostname: str
    addresses: tuple[IPv6Address, ...]


def list_servers(session: Session) -> list[NamedServer]:
    """Return the servers with a routed address, oldest first; networks without a gateway are ignored."""
    query = (
        select(Server.id, Server.hostname, Port.ip_address)
        .join(Port, Port.device_id == Server.id)
        .join(Subnet, Subnet.id == Port.subnet_id)
        .where(Server.deleted.is_(False), Port.ip_address.is_not(None), Subnet.gateway_ip.is_not(None))
        .order_by(Server.seq, Port.attached, Port.id)
    )
    found: dict[tuple[str, str], list[IPv6Address]] = {}
    for server_id, hostname, address in session.execute(query):
        found.setdefault((server_id, hostname), []).append(IPv6Address(address))
    return [NamedServer(server_id, hostname, tuple(addresses)) for (server_id, hostname), addresses in found.items()]


def list_prefixes(session: Session) -> list[IPv6Network]:
    """Return the prefixes of all pools and of subnets outside of pools."""
    pools = [prefix for of_one in session.scalars(select(SubnetPool.prefixes)) for prefix in of_one]
    others = session.scalars(select(Subnet.cidr).where(Subnet.subnet_pool_id.is_(None)))
    return [IPv6Network(prefix) for prefix in (*pools, *others)]


def assign_labels(known: Iterable[NamedServer], taken: Collection[str] = ()) -> dict[str, tuple[IPv6Address, ...]]:
    """Return a unique label for each server, with its addresses. `taken` labels have other records in the zone."""
    chosen: dict[str, tuple[IPv6Address, ...]] = {}
    for one in known:
        label = one.hostname.lower().partition(".")[0]
        if not LABEL.fullmatch(label):
            label = "server"
        elif label not in chosen and label not in taken:
            chosen[label] = one.addresses
            continue
        chosen[f"{label[: 62 - SUFFIX]}-{one.id[:SUFFIX]}"] = one.addresses
    return chosen
