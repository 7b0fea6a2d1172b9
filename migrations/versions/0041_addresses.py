"""Remove scope ids and unusable name servers from stored addresses.

Earlier releases accepted `fe80::1%anything` for IPv6 addresses. Hosts refuse such a value today, so a row that has one
would keep its server from being started.
"""

from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0041_addresses"
down_revision = "0040_catalog_and_names"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
POOLS = sa.table("subnet_pools", sa.column("id"), sa.column("prefixes", JSON))
SUBNETS = sa.table(
    "subnets", sa.column("id"), sa.column("cidr"), sa.column("gateway_ip"), sa.column("dns_nameservers", JSON)
)
PORTS = sa.table(
    "ports",
    sa.column("id"),
    sa.column("subnet_id"),
    sa.column("mac_address"),
    sa.column("ip_address"),
    sa.column("allowed_address_pairs", JSON),
)
SERVERS = sa.table("servers", sa.column("id"), sa.column("access_ipv6"))


def upgrade() -> None:
    connection = op.get_bind()
    for pool in connection.execute(sa.select(POOLS)).all():
        _set(POOLS, pool.id, prefixes=(pool.prefixes, list(dict.fromkeys(map(_unscoped, pool.prefixes)))))
    for subnet in connection.execute(sa.select(SUBNETS)).all():
        _repair_subnet(subnet)
    for port in connection.execute(sa.select(PORTS)).all():
        _repair_port(port)
    scoped = SERVERS.c.access_ipv6.contains("%", autoescape=True)
    for server in connection.execute(sa.select(SERVERS).where(scoped)).all():
        _set(SERVERS, server.id, access_ipv6=(server.access_ipv6, _unscoped(server.access_ipv6)))


def downgrade() -> None:
    """The rows as they are now are good for earlier releases, too."""


def _repair_subnet(subnet: Any) -> None:
    cidr, gateway = _unscoped(subnet.cidr), subnet.gateway_ip
    if cidr != subnet.cidr and _exists(SUBNETS.c.cidr == cidr):
        # Two subnets with one prefix: this one has never been advertised, as its text is none for radvd.
        op.execute(PORTS.update().where(PORTS.c.subnet_id == subnet.id).values(subnet_id=None, ip_address=None))
        op.execute(SUBNETS.delete().where(SUBNETS.c.id == subnet.id))
        return
    _set(
        SUBNETS,
        subnet.id,
        cidr=(subnet.cidr, cidr),
        gateway_ip=(gateway, gateway and _unscoped(gateway)),
        dns_nameservers=(subnet.dns_nameservers, list(_reachable(subnet.dns_nameservers))),
    )


def _repair_port(port: Any) -> None:
    address = port.ip_address and _unscoped(port.ip_address)
    if address != port.ip_address and _exists(PORTS.c.ip_address == address):
        address = _slaac(address, port.mac_address)
        if _exists(PORTS.c.ip_address == address):
            address = None
    pairs = [pair | {"ip_address": _unscoped(pair["ip_address"])} for pair in port.allowed_address_pairs]
    _set(
        PORTS,
        port.id,
        ip_address=(port.ip_address, address),
        allowed_address_pairs=(port.allowed_address_pairs, pairs),
    )


def _set(table: sa.TableClause, key: str, **values: tuple[Any, Any]) -> None:
    """Write the columns whose new value, the second one, differs."""
    changed = {name: new for name, (old, new) in values.items() if new != old}
    if changed:
        op.execute(table.update().where(table.c.id == key).values(changed))


def _exists(condition: sa.ColumnElement[bool]) -> bool:
    return op.get_bind().scalar(sa.select(sa.literal(1)).where(condition).limit(1)) is not None


def _unscoped(text: str) -> str:
    """The address or prefix without its scope id."""
    address, _, rest = text.partition("%")
    _, slash, length = rest.rpartition("/")
    return f"{address}{slash}{length}" if slash else address


def _reachable(servers: list[str]) -> Iterator[str]:
    for server in servers:
        address = IPv6Address(_unscoped(server))
        if not (address.is_multicast or address.is_loopback or address.is_link_local or address.is_unspecified):
            yield str(address)


def _slaac(address: str, mac: str) -> str:
    """The address that a guest with this MAC forms in the /64 of an address (EUI-64)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(IPv6Network(f"{address}/64", strict=False)[0] + int.from_bytes(identifier, "big"))
