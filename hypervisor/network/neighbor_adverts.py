"""Telling the guests of a segment where their router is: on this host, for those that have just come from another one.

A guest that was moved remembers the link-layer address of the bridge of the host that it left. An unsolicited neighbour
advertisement (RFC 4861, 7.2.6) corrects that at once; other hosts drop it before their guests see it.
"""

import contextlib
import logging
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv6Address

from hypervisor.api.spec import NicSpec
from hypervisor.network.links import METADATA, Links

log = logging.getLogger(__name__)

ADVERTISEMENT = 136
ROUTER, OVERRIDE = 0x8000_0000, 0x2000_0000
TARGET_LINK_LAYER_ADDRESS = 2
ALL_NODES = "ff02::1"


def send_router_advertisements(links: Links, nics: Iterable[NicSpec]) -> None:
    """Say on each segment that its router's addresses are this host's. Guests find out by themselves, only later."""
    for nic in nics:
        for address in (METADATA, nic.gateway):
            if address is not None:
                with contextlib.suppress(OSError):
                    _send(links.bridge(nic.vni), advertisement(address, links.bridge_mac(nic.vni)))


def advertisement(target: IPv6Address, mac: str) -> bytes:
    """The message, without its checksum, which is the kernel's."""
    option = struct.pack("!BB6s", TARGET_LINK_LAYER_ADDRESS, 1, bytes.fromhex(mac.replace(":", "")))
    return struct.pack("!BBHI", ADVERTISEMENT, 0, 0, ROUTER | OVERRIDE) + target.packed + option


def _send(link: str, message: bytes) -> None:
    index = socket.if_nametoindex(link)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sender.bind((str(METADATA), 0, 0, index))
        sender.sendto(message, (ALL_NODES, 0, 0, index))
