"""Host filter: services of the host that guests reach, and accepted sources of VXLAN, tested with real packets."""

import contextlib
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from hypervisor.driver import QemuHypervisor
from hypervisor.network.links import METADATA_ADDRESS
from tests.host.support import HostMaker, OneImage, inside, network_namespace
from tests.host.taps import ACK, ECHO, RST, Guest, guest_on, own_source, udp, vxlan, whole
from tests.host.test_spoofing import (
    FRAGMENT,
    GATEWAY,
    HOSTILE,
    ICMPV6,
    OWN,
    TCP,
    UDP,
    VICTIM,
    VNET_HEADER,
    frame,
    icmp,
    ipv6,
    mac,
    on,
)

VXLAN_PORT = 4789
UNDERLAY = IPv6Address("fd00:aaaa::1")
OTHER_HOST = IPv6Address("fd00:aaaa::2")
STRANGER = IPv6Address("fd00:aaaa::66")
ELSEWHERE = on(0x668, 2)


def ip(*words: object) -> None:
    subprocess.run(["ip", *map(str, words)], check=True)


@pytest.fixture
def uplink(namespace: None) -> Iterator[int]:
    """A link to another computer in the returned namespace. One processor keeps packets in order."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    outside = network_namespace()
    ip("link", "add", "dev", "uplink", "type", "veth", "peer", "name", "eth0")
    ip("link", "set", "dev", "eth0", "netns", f"/proc/{os.getpid()}/fd/{outside}")
    ip("address", "add", f"{UNDERLAY}/64", "dev", "uplink", "nodad")
    ip("link", "set", "dev", "uplink", "up")
    with inside(outside):
        for address in (OTHER_HOST, STRANGER):
            ip("address", "add", f"{address}/64", "dev", "eth0", "nodad")
        ip("link", "set", "dev", "eth0", "up")
    try:
        yield outside
    finally:
        os.sched_setaffinity(0, processors)
        os.close(outside)


def inner(mark: bytes, *, source: str = "02:de:ad:be:ef:00") -> bytes:
    return frame(ipv6(IPv6Address("fe80::dead:beef"), icmp(ECHO, None, mark)), source=source)


def arrives(tap: int, mark: bytes, last: bytes) -> bool:
    """Return whether a frame with the mark arrives before the last one."""
    deadline = time.monotonic() + 10
    found = False
    while time.monotonic() < deadline:
        if select.select([tap], [], [], 0.5)[0]:
            received = os.read(tap, 65536)
            if received.endswith(last):
                return found
            found = found or received.endswith(mark)
    raise AssertionError("the last frame did not arrive")


def multicast_reaches(bridge: str, payload: bytes) -> None:
    """Send a multicast frame of the host on a bridge; it arrives after frames in transit."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((bridge, 0))
        sender.send(frame(ipv6(IPv6Address("fe80::1"), icmp(ECHO, None, payload)), source="0a:36:00:00:00:01"))


@pytest.mark.parametrize("is_open", [False, True])
def test_a_guest_cannot_inject_vxlan_into_other_networks(
    make_host: HostMaker, blank_image: Path, is_open: bool
) -> None:
    """VXLAN to any address of the host, whole or fragmented, also with guests_reach_host."""
    host = make_host(OneImage(blank_image), guests_reach_host=is_open)
    ip("address", "add", f"{UNDERLAY}/64", "dev", "lo", "nodad")
    with guest_on(host, ELSEWHERE) as guest:
        victim = host.links.open_tap(ELSEWHERE, 65534)
        packet = vxlan(ELSEWHERE.vni, inner(b"injected"))
        for number, to in enumerate((GATEWAY, METADATA_ADDRESS, UNDERLAY, IPv6Address("ff05::668"))):
            source = own_source(to)
            guest.send(ipv6(source, udp(source, to, VXLAN_PORT, packet), header=UDP, to=to))
            body = udp(source, to, VXLAN_PORT, packet)
            for cut in (8, 16):
                parts = ((0, body[:cut], 1), (cut, body[cut:], 0))
                for offset, part, more in parts:
                    header = struct.pack("!BBHI", UDP, 0, offset | more, 7 + number * 8 + cut)
                    guest.send(ipv6(source, header + part, header=FRAGMENT, to=to))
        guest.receive(guest.ping(GATEWAY, b"all sent"), lambda _: False)
        multicast_reaches(host.links.bridge(ELSEWHERE.vni), b"the last")
        assert not arrives(victim, b"injected", b"the last")
        os.close(victim)


def send_vxlan(namespace: int, source: IPv6Address, vni: int, payload: bytes) -> None:
    with inside(namespace), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.bind((str(source), 0))
        sender.sendto(vxlan(vni, payload), (str(UNDERLAY), VXLAN_PORT))


@pytest.mark.parametrize("peers", [(), (UNDERLAY, OTHER_HOST)])
def test_vxlan_is_accepted_from_the_underlay_only(
    make_host: HostMaker, blank_image: Path, uplink: int, peers: tuple[IPv6Address, ...]
) -> None:
    host = make_host(OneImage(blank_image), uplink="uplink", peers=peers)
    with guest_on(host) as guest:
        send_vxlan(uplink, STRANGER, HOSTILE.vni, inner(b"stranger"))
        send_vxlan(uplink, OTHER_HOST, HOSTILE.vni, inner(b"other host"))
        assert arrives(guest.tap, b"stranger", b"other host") is (peers == ())
    # Without an uplink all VXLAN is dropped.
    host = make_host(OneImage(blank_image))
    with guest_on(host) as guest:
        send_vxlan(uplink, OTHER_HOST, HOSTILE.vni, inner(b"other host"))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as after:
            after.bind((str(UNDERLAY), 9))
            after.settimeout(10)
            with inside(uplink), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"after", (str(UNDERLAY), 9))
            assert after.recv(9) == b"after"
        multicast_reaches(host.links.bridge(HOSTILE.vni), b"the last")
        assert not arrives(guest.tap, b"other host", b"the last")


def test_underlay_frames_with_a_local_guests_mac_are_dropped(
    make_host: HostMaker, blank_image: Path, uplink: int
) -> None:
    """Frames from the underlay with the MAC of a local guest are dropped, except during migrations."""
    host = make_host(OneImage(blank_image), uplink="uplink")

    def takes(number: int) -> bool:
        """Return whether a frame with the guest's MAC arrives."""
        last = b"last %d" % number
        send_vxlan(uplink, OTHER_HOST, HOSTILE.vni, inner(b"taken %d" % number, source=VICTIM.mac))
        send_vxlan(uplink, OTHER_HOST, HOSTILE.vni, inner(last))
        return arrives(guest.tap, b"taken %d" % number, last)

    with guest_on(host, VICTIM) as guest:
        victim = host.links.open_tap(VICTIM, 65534)
        os.write(victim, VNET_HEADER + frame(ipv6(VICTIM.addresses[0].ip, icmp(ECHO)), source=VICTIM.mac))
        assert not takes(1)
        shown = subprocess.run(
            ["bridge", "fdb", "show", "br", host.links.bridge(HOSTILE.vni)], check=True, capture_output=True, text=True
        )
        learnt = [line for line in shown.stdout.splitlines() if line.startswith(VICTIM.mac) and "master" in line]
        assert learnt, "the bridge knows where the victim is"
        assert not [line for line in learnt if host.links.vxlan(HOSTILE.vni) in line]
        host.segments.mark_migrating("others")
        assert takes(2), "a guest that migrates goes on reaching its neighbours"
        host.segments.repair(["hostile", "others"])
        assert takes(3)
        host.segments.claim("others", (VICTIM,))
        assert not takes(4)
        host.segments.claim("others", (VICTIM,), is_incoming=True)
        assert takes(5), "a guest that is awaited"
        host.segments.claim("others", (VICTIM,))
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        assert takes(6)
        host.segments.repair(["hostile", "others"])
        assert not takes(7)
        os.close(victim)


def listen_everywhere(ports: tuple[int, ...]) -> tuple[list[socket.socket], dict[int, socket.socket]]:
    """Open TCP and UDP services on all addresses of the host."""
    streams, datagrams = [], {}
    for port in ports:
        streams.append(socket.create_server(("::", port), family=socket.AF_INET6))
        datagrams[port] = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        datagrams[port].bind(("::", port))
        datagrams[port].setblocking(False)
    return streams, datagrams


PORTS = (22, 53, 80, 123, 546, 547, 5432, 5672, 8774, 8775, 9997, 49152)


def reached(guest: Guest, addresses: tuple[IPv6Address, ...]) -> set[tuple[str, IPv6Address, int]]:
    """Probe services of the host from a guest; return the reachable ones."""
    streams, datagrams = listen_everywhere(PORTS)
    found = set()
    try:
        for to in addresses:
            source = own_source(to)
            for port in PORTS:
                if guest.reaches_tcp(to, port):
                    found.add(("tcp", to, port))
                guest.send(ipv6(source, udp(source, to, port, str(to).encode()), header=UDP, to=to))
            guest.receive(guest.ping(to, b"udp sent"), lambda _: False)
            for port in PORTS:
                with contextlib.suppress(BlockingIOError):
                    assert datagrams[port].recv(100) == str(to).encode()
                    found.add(("udp", to, port))
    finally:
        for one in (*streams, *datagrams.values()):
            one.close()
    return found


def test_the_exact_services_of_the_host_that_guests_reach(make_host: HostMaker, blank_image: Path) -> None:
    """The exact list of reachable services, by address and port over TCP and UDP."""
    ip("address", "add", f"{UNDERLAY}/64", "dev", "lo", "nodad")
    ip("address", "add", "fd00:aaaa::53/128", "dev", "lo", "nodad")
    resolver = IPv6Address("fd00:aaaa::53")
    own = IPv6Address(f"fd00:6:6:6:{mac_address(make_host(OneImage(blank_image)))}")
    addresses = (GATEWAY, METADATA_ADDRESS, UNDERLAY, resolver, own)
    metadata = ("tcp", METADATA_ADDRESS, 80)
    cases: list[tuple[dict[str, object], set[tuple[str, IPv6Address, int]]]] = [
        ({}, {metadata}),
        ({"dns_servers": (resolver,)}, {metadata, ("tcp", resolver, 53), ("udp", resolver, 53)}),
        ({"guests_reach_ports": (8774,)}, {metadata, *(("tcp", to, 8774) for to in addresses)}),
        (
            {"guests_reach_host": True},
            {(kind, to, port) for kind in ("tcp", "udp") for to in addresses for port in PORTS}
            # DHCPv6 responses from guests are dropped.
            - {("udp", to, 546) for to in addresses},
        ),
    ]
    for settings, expected in cases:
        host = make_host(OneImage(blank_image), **settings)
        with guest_on(host) as guest:
            assert reached(guest, addresses) == expected, settings
            protocols = [header for header in (4, 41, 47, 50, 89, 132, 136) if reaches_protocol(guest, header)]
            assert protocols == ([] if not host.config.guests_reach_host else protocols)


def mac_address(host: QemuHypervisor) -> str:
    """Return the MAC of the host on the guest's bridge."""
    octets = bytearray(mac(host.links.bridge_mac(HOSTILE.vni)))
    octets[0] ^= 2
    return f"{octets[0]:02x}{octets[1]:02x}:{octets[2]:02x}ff:fe{octets[3]:02x}:{octets[4]:02x}{octets[5]:02x}"


def reaches_protocol(guest: Guest, header: int) -> bool:
    """Return whether the host answers a protocol other than TCP, UDP and ICMPv6, also with an error."""
    guest.send(ipv6(OWN, bytes(40), header=header, to=GATEWAY))
    last = guest.ping(GATEWAY, b"protocol %d" % header)
    return guest.receive(lambda got: got[20] == ICMPV6 and got[54] in (1, 4), last) is not None


def test_a_guest_sends_no_vxlan_to_other_hosts(make_host: HostMaker, blank_image: Path, uplink: int) -> None:
    """Other hosts would accept routed VXLAN of a guest as traffic of the underlay."""
    host = make_host(OneImage(blank_image), uplink="uplink", forward=True)
    host.repair()
    with inside(uplink):
        taken, other = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
        taken.bind((str(OTHER_HOST), VXLAN_PORT))
        other.bind((str(OTHER_HOST), 8472))
    with guest_on(host) as guest, taken, other:
        for port in (VXLAN_PORT, 8472):
            guest.send(ipv6(OWN, udp(OWN, OTHER_HOST, port, b"routed"), header=UDP, to=OTHER_HOST))
        other.settimeout(10)
        assert other.recv(100) == b"routed", "guests reach what the host routes to"
        taken.setblocking(False)
        with pytest.raises(BlockingIOError):
            taken.recv(100)


def test_the_host_reaches_its_guests_and_receives_replies(make_host: HostMaker, blank_image: Path) -> None:
    host = make_host(OneImage(blank_image))
    with (
        guest_on(host) as guest,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asking,
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as connecting,
    ):
        asking.sendto(b"question", (str(OWN), 123))
        question = guest.receive(lambda got: got.endswith(b"question"), lambda _: False)
        assert question is not None
        host_address, port = IPv6Address(question[22:38]), int.from_bytes(question[54:56])
        asking.settimeout(10)
        # Replies are accepted only from the queried address.
        for sport, answer in ((124, b"forged"), (123, b"answer")):
            body = udp(OWN, host_address, port, answer, sport=sport)
            guest.send(ipv6(OWN, body, header=UDP, to=host_address))
        assert asking.recv(100) == b"answer"
        connecting.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connecting.connect((str(OWN), 7))
        opening = guest.receive(lambda got: got[20] == TCP, lambda _: False)
        assert opening is not None
        sport, sequence = struct.unpack("!H2xI", opening[54:62])
        reply = struct.pack("!HHIIBBHHH", 7, sport, 1, sequence + 1, 0x50, RST | ACK, 0, 0, 0)
        guest.send(ipv6(OWN, whole(OWN, host_address, TCP, reply, 16), header=TCP, to=host_address))
        assert select.select([], [connecting], [], 10)[1]
        assert connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 111, "connection refused"


def test_the_host_filter_is_repaired_and_removed_with_the_last_guest(make_host: HostMaker, blank_image: Path) -> None:
    host = make_host(OneImage(blank_image))

    def tables() -> str:
        return subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout

    with guest_on(host) as guest:
        service = socket.create_server(("::", 9997), family=socket.AF_INET6)
        table = host.guard.host_filter.table
        for number, damage in enumerate((f"delete table {table}", f"flush table {table}", f"flush chain {table} host")):
            subprocess.run(["nft", *damage.split()], check=True)
            assert guest.reaches_tcp(GATEWAY, 9997, number=2 * number)
            host.segments.repair(["hostile"])
            assert not guest.reaches_tcp(GATEWAY, 9997, number=2 * number + 1)
        service.close()
        # A new agent with other settings replaces the rules of a killed one.
        later = make_host(OneImage(blank_image), guests_reach_ports=(9998,))
        later.segments.register("hostile", (HOSTILE,))
        later.segments.repair(["hostile"])
        assert guest.reaches_tcp(GATEWAY, 9998, number=90)
        assert host.config.installation in tables()
    assert host.config.installation not in tables()


def test_address_scans_of_guests_are_rate_limited(make_host: HostMaker, blank_image: Path) -> None:
    """Each unreachable address uses an entry of the host's neighbour table."""
    host = make_host(OneImage(blank_image), forward=True)
    host.repair()
    with guest_on(host, ELSEWHERE) as guest:
        base = int(ELSEWHERE.addresses[0].network.network_address) + (1 << 32)
        for number in range(2000):
            to = IPv6Address(base + number)
            guest.send(ipv6(OWN, icmp(ECHO), to=to))
        guest.receive(guest.ping(GATEWAY, b"all sent"), lambda _: False)
        words = ["ip", "-6", "neighbour", "show", "nud", "all", "dev", host.links.bridge(ELSEWHERE.vni)]
        shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        asked = [line for line in shown.splitlines() if str(IPv6Address(base))[:-2] in line]
        assert 100 < len(asked) < 1500
