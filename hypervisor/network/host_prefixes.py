"""Keeps prefixes that users choose (ULA, RFC 4193) away from the networks that a host itself uses.

A segment's gateway address gives the host a route to the segment's /64. If that /64 were the underlay's, or held the
host's name server or database, the host's own traffic would go to a user's guests. What the host uses is read from
/proc, of the network namespace of the calling thread.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from hypervisor.api.errors import LaunchFailed
from hypervisor.api.spec import NicSpec

NET = Path("/proc/thread-self/net")
RESOLVERS = Path("/etc/resolv.conf")
LISTEN = "0A"
REJECT = 0x200
"""RTF_REJECT: an unreachable or blackhole route, as RFC 4193 recommends for fc00::/7."""

log = logging.getLogger(__name__)


def refuse_host_prefix(nic: NicSpec, installation: str, peers: Iterable[str]) -> None:
    """Raise LaunchFailed when the user-chosen prefix of this interface is one that the host uses itself."""
    if not nic.prefix_by_user or nic.gateway is None:
        return
    prefix = IPv6Network((int(nic.gateway), 64), strict=False)
    for use in _uses(prefix, installation, peers):
        log.error("segment %d: the prefix %s, chosen by a user, is refused: %s", nic.vni, prefix, use)
        raise LaunchFailed(f"The prefix {prefix} is in use by this cloud's hosts. Choose another one for the subnet.")


def _uses(prefix: IPv6Network, installation: str, peers: Iterable[str]) -> Iterator[str]:
    ours = tuple(f"6{kind}{installation}" for kind in "bvtn")
    for address, link in _addresses():
        if address in prefix and not link.startswith(ours):
            yield f"{link} has the address {address}"
    for destination, link in _routes():
        if destination.prefixlen > 0 and destination.overlaps(prefix) and not link.startswith(ours):
            yield f"there is a route to {destination} by {link}"
    for address in _clients_of():
        if address in prefix:
            yield f"the host has a connection to {address}"
    for address in (*_parsed(peers), *_resolvers()):
        if address in prefix:
            yield f"{address} is a peer or name server of the host"


def _addresses() -> Iterator[tuple[IPv6Address, str]]:
    for words in _lines("if_inet6"):
        yield IPv6Address(int(words[0], 16)), words[5]


def _routes() -> Iterator[tuple[IPv6Network, str]]:
    for words in _lines("ipv6_route"):
        if words[9] != "lo" and not int(words[8], 16) & REJECT:
            yield IPv6Network((int(words[0], 16), int(words[1], 16)), strict=False), words[9]


def _clients_of() -> Iterator[IPv6Address]:
    """Servers that programs of this host are connected to, such as the database or the broker."""
    sockets = [words for words in _lines("tcp6") if ":" in words[1]]
    served = {words[1].partition(":")[2] for words in sockets if words[3] == LISTEN}
    for words in sockets:
        if words[3] != LISTEN and words[1].partition(":")[2] not in served:
            yield _remote(words[2].partition(":")[0])


def _remote(text: str) -> IPv6Address:
    """An address as /proc/net/tcp6 has it: four words in the byte order of the host, here little-endian."""
    words = (bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, 32, 8))
    return IPv6Address(b"".join(words))


def _resolvers() -> Iterator[IPv6Address]:
    with contextlib.suppress(OSError):
        lines = [line.split() for line in RESOLVERS.read_text(errors="replace").splitlines()]
        yield from _parsed(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")


def _parsed(texts: Iterable[str]) -> Iterator[IPv6Address]:
    for text in texts:
        with contextlib.suppress(ValueError):
            yield IPv6Address(text)


def _lines(name: str) -> Iterator[list[str]]:
    with contextlib.suppress(FileNotFoundError):
        for line in (NET / name).read_text().splitlines():
            yield line.split()
