"""A simulated guest: sends and receives real packets through its tap, without qemu."""

import contextlib
import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address

from hypervisor.api.spec import NicSpec
from hypervisor.driver import QemuHypervisor
from tests.host.test_spoofing import (
    HOSTILE,
    ICMPV6,
    OWN,
    OWN_LINK_LOCAL,
    TCP,
    UDP,
    VNET_HEADER,
    ipv6,
    mac,
)

SYN, ACK, RST = 2, 16, 4
ECHO, ECHO_REPLY = 128, 129


def checksum(source: IPv6Address, to: IPv6Address, kind: int, body: bytes) -> int:
    whole = source.packed + to.packed + struct.pack("!II", len(body), kind) + body + b"\0" * (len(body) % 2)
    total = sum(struct.unpack(f"!{len(whole) // 2}H", whole))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF


def whole(source: IPv6Address, to: IPv6Address, kind: int, body: bytes, place: int) -> bytes:
    """Return the body with its checksum inserted at offset `place`."""
    return body[:place] + struct.pack("!H", checksum(source, to, kind, body)) + body[place + 2 :]


def udp(source: IPv6Address, to: IPv6Address, port: int, payload: bytes, *, sport: int = 40000) -> bytes:
    return whole(source, to, UDP, struct.pack("!HHHH", sport, port, 8 + len(payload), 0) + payload, 6)


def tcp(source: IPv6Address, to: IPv6Address, port: int, flags: int, number: int) -> bytes:
    return whole(source, to, TCP, struct.pack("!HHIIBBHHH", 40000 + number, port, 1, 0, 0x50, flags, 1024, 0, 0), 16)


def vxlan(vni: int, inner: bytes) -> bytes:
    return struct.pack("!II", 0x08 << 24, vni << 8) + inner


def own_source(to: IPv6Address) -> IPv6Address:
    return OWN_LINK_LOCAL if to.is_link_local else OWN


class Guest:
    """A guest's end of a tap on the host `host`."""

    def __init__(self, host: QemuHypervisor, nic: NicSpec) -> None:
        self.nic = nic
        self.router = host.links.bridge_mac(nic.vni)
        self.tap = host.links.open_tap(nic, 65534)

    def send(self, packet: bytes, to: str | None = None) -> None:
        ethernet = mac(to or self.router) + mac(self.nic.mac) + b"\x86\xdd"
        os.write(self.tap, VNET_HEADER + ethernet + packet)

    def receive(self, wanted: Callable[[bytes], bool], until: Callable[[bytes], bool]) -> bytes | None:
        """Return the next frame that matches `wanted`; None when a frame matches `until` first."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if select.select([self.tap], [], [], 0.5)[0]:
                received = os.read(self.tap, 65536)[len(VNET_HEADER) :]
                if wanted(received):
                    return received
                if until(received):
                    return None
                self.answer_solicitation(received)
        raise AssertionError("neither the wanted frame nor the last one arrived")

    def answer_solicitation(self, received: bytes) -> None:
        """Answer a neighbor solicitation of the host."""
        if received[12:14] == b"\x86\xdd" and received[20] == ICMPV6 and received[54] == 135:
            target, asker = IPv6Address(received[62:78]), IPv6Address(received[22:38])
            if target in (OWN, OWN_LINK_LOCAL):
                option = b"\x02\x01" + mac(self.nic.mac)
                body = struct.pack("!BBHI", 136, 0, 0, 0x6000_0000) + target.packed + option
                self.send(ipv6(target, whole(target, asker, ICMPV6, body, 2), to=asker))

    def ping(self, to: IPv6Address, mark: bytes) -> Callable[[bytes], bool]:
        """Send an echo request and return a predicate for its reply, which follows the replies to earlier packets."""
        source = own_source(to)
        body = struct.pack("!BBHI", ECHO, 0, 0, 0) + mark
        self.send(ipv6(source, whole(source, to, ICMPV6, body, 2), to=to))
        return lambda received: received[20] == ICMPV6 and received[54] == ECHO_REPLY and received.endswith(mark)

    def reaches_tcp(self, to: IPv6Address, port: int, *, flags: int = SYN, number: int = 0) -> bool:
        """Return whether the host answers a TCP segment, with RST for a closed port."""
        source = own_source(to)
        self.send(ipv6(source, tcp(source, to, port, flags, number), header=TCP, to=to))
        last = self.ping(to, b"tcp %d %d" % (port, number))
        return self.receive(lambda got: got[20] == TCP and got[54:56] == struct.pack("!H", port), last) is not None


@contextlib.contextmanager
def guest_on(host: QemuHypervisor, *others: NicSpec) -> Iterator[Guest]:
    """Set up the network of a machine, with `others` on the same host, and yield its simulated guest."""
    host.segments.claim("hostile", (HOSTILE,))
    if others:
        host.segments.claim("others", others)
    guest = Guest(host, HOSTILE)
    try:
        yield guest
    finally:
        os.close(guest.tap)
        host.segments.release("hostile")
        host.segments.release("others")
