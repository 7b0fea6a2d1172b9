"""Refuses user-chosen prefixes (ULA, RFC 4193) that overlap networks which the host itself uses.

A segment's gateway address gives the host a route to the segment's /64. If that /64 contained the underlay, a name
server or the database, the host's own traffic would go to a user's guests. Addresses, routes and connections of the
host are read from /proc, in the network namespace of the calling thread.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from hypervisor.api.errors import LaunchFailed
from hypervisor.api.spec import NicSpec

PROC_NET = Path("/proc/thread-self/net")
RESOLV_CONF = Path("/etc/resolv.conf")
TCP_LISTEN = "0A"
RTF_REJECT = 0x200
"""RTF_REJECT: unreachable and blackhole routes, which RFC 4193 recommends for fc00::/7, are no conflict."""

log = logging.getLogger(__name__)


def refuse_host_prefix(nic: NicSpec, installation: str, peers: Iterable[str]) -> None:
    """Raise LaunchFailed if the user-chosen prefix of this interface overlaps a network that the host uses."""
    if not nic.prefix_by_user or nic.gateway is None:
        return
    prefix = IPv6Network((int(nic.gateway), 64), strict=False)
    for conflict in _find_conflicts(prefix, installation, peers):
        log.error("segment %d: refused the user-chosen prefix %s: %s", nic.vni, prefix, conflict)
        raise LaunchFailed(f"The prefix {prefix} is in use by this cloud's hosts. Choose another one for the subnet.")


def _find_conflicts(prefix: IPv6Network, installation: str, peers: Iterable[str]) -> Iterator[str]:
    own_links = tuple(f"6{kind}{installation}" for kind in "bvtn")
    for address, link in _local_addresses():
        if address in prefix and not link.startswith(own_links):
            yield f"{link} has the address {address}"
    for destination, link in _list_routes():
        if destination.prefixlen > 0 and destination.overlaps(prefix) and not link.startswith(own_links):
            yield f"there is a route to {destination} via {link}"
    for address in _connected_servers():
        if address in prefix:
            yield f"the host has a connection to {address}"
    for address in (*_parse_addresses(peers), *_read_resolvers()):
        if address in prefix:
            yield f"{address} is a peer or name server of the host"


def _local_addresses() -> Iterator[tuple[IPv6Address, str]]:
    for fields in _read_table("if_inet6"):
        yield IPv6Address(int(fields[0], 16)), fields[5]


def _list_routes() -> Iterator[tuple[IPv6Network, str]]:
    for fields in _read_table("ipv6_route"):
        if fields[9] != "lo" and not int(fields[8], 16) & RTF_REJECT:
            yield IPv6Network((int(fields[0], 16), int(fields[1], 16)), strict=False), fields[9]


def _connected_servers() -> Iterator[IPv6Address]:
    """Yield the remote ends of outgoing TCP connections of this host, such as the database or the broker."""
    sockets = [fields for fields in _read_table("tcp6") if ":" in fields[1]]
    listening_ports = {fields[1].partition(":")[2] for fields in sockets if fields[3] == TCP_LISTEN}
    for fields in sockets:
        if fields[3] != TCP_LISTEN and fields[1].partition(":")[2] not in listening_ports:
            yield _parse_proc_address(fields[2].partition(":")[0])


def _parse_proc_address(text: str) -> IPv6Address:
    """Parse an address of /proc/net/tcp6: four 32-bit words in host byte order (little-endian)."""
    words = (bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, 32, 8))
    return IPv6Address(b"".join(words))


def _read_resolvers() -> Iterator[IPv6Address]:
    with contextlib.suppress(OSError):
        lines = [line.split() for line in RESOLV_CONF.read_text(errors="replace").splitlines()]
        yield from _parse_addresses(fields[1] for fields in lines if len(fields) > 1 and fields[0] == "nameserver")


def _parse_addresses(texts: Iterable[str]) -> Iterator[IPv6Address]:
    for text in texts:
        with contextlib.suppress(ValueError):
            yield IPv6Address(text)


def _read_table(name: str) -> Iterator[list[str]]:
    with contextlib.suppress(FileNotFoundError):
        for line in (PROC_NET / name).read_text().splitlines():
            yield line.split()
