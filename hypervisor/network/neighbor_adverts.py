"""Unsolicited neighbour advertisements for the gateway addresses of a segment, sent after a live migration.

A migrated guest has the bridge of its former host in its neighbour cache. An unsolicited neighbour advertisement
(RFC 4861, 7.2.6) updates the entry at once; other hosts drop it before it reaches their guests.
"""

import contextlib
import logging
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv6Address

from hypervisor.api.spec import NicSpec
from hypervisor.network.links import METADATA_ADDRESS, Links

log = logging.getLogger(__name__)

NEIGHBOUR_ADVERTISEMENT = 136
ROUTER, OVERRIDE = 0x8000_0000, 0x2000_0000
TARGET_LINK_LAYER_ADDRESS = 2
ALL_NODES = "ff02::1"


def send_gateway_advertisements(links: Links, nics: Iterable[NicSpec]) -> None:
    """Advertise the gateway and metadata addresses of each segment with this host's MAC.

    Errors are ignored: neighbour unreachability detection in the guest corrects the entry too, only later.
    """
    for nic in nics:
        for address in (METADATA_ADDRESS, nic.gateway):
            if address is not None:
                with contextlib.suppress(OSError):
                    _send(links.bridge(nic.vni), build_advertisement(address, links.bridge_mac(nic.vni)))


def build_advertisement(target: IPv6Address, mac: str) -> bytes:
    """A neighbour advertisement with router and override flags (RFC 4861, 4.4); the kernel fills in the checksum."""
    option = struct.pack("!BB6s", TARGET_LINK_LAYER_ADDRESS, 1, bytes.fromhex(mac.replace(":", "")))
    return struct.pack("!BBHI", NEIGHBOUR_ADVERTISEMENT, 0, 0, ROUTER | OVERRIDE) + target.packed + option


def _send(link: str, message: bytes) -> None:
    index = socket.if_nametoindex(link)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sender.bind((str(METADATA_ADDRESS), 0, 0, index))
        sender.sendto(message, (ALL_NODES, 0, 0, index))
