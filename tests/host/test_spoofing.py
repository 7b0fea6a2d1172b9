"""Anti-spoofing: a hostile guest writes arbitrary frames to its tap; its neighbour receives only permitted ones."""

import os
import select
import struct
import subprocess
import time
import uuid
from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from hypervisor.api.spec import KeySpec, NicSpec
from hypervisor.base.addresses import slaac_address
from hypervisor.base.config import Nat64
from hypervisor.network.antispoofing import LINK_LOCAL
from hypervisor.network.links import METADATA_ADDRESS
from tests.host.support import PREFIX, HostMaker, OneImage, image_ref, make_spec, ssh

ALL_NODES = IPv6Address("ff02::1")
HOP_BY_HOP, TCP, FRAGMENT, ICMPV6, DESTINATION, UDP = 0, 6, 44, 58, 60, 17
VNET_HEADER = bytes(10)
ROUTER_SOLICIT, ROUTER_ADVERT, SOLICIT, ADVERT, REDIRECT, LISTENER_REPORT, ECHO = 133, 134, 135, 136, 137, 143, 128

HOSTILE: NicSpec = make_spec(1, None).nics[0]
VICTIM: NicSpec = make_spec(2, None).nics[0]
OWN = HOSTILE.addresses[0].ip
OWN_LINK_LOCAL = slaac_address(LINK_LOCAL, HOSTILE.mac)
OTHER = VICTIM.addresses[0].ip
OTHER_LINK_LOCAL = slaac_address(LINK_LOCAL, VICTIM.mac)
GATEWAY = IPv6Address(int(PREFIX.network.network_address) + 1)
NOBODY = IPv6Address("::")


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def frame(payload: bytes, *, source: str = HOSTILE.mac, kind: int = 0x86DD) -> bytes:
    return mac("33:33:00:00:00:01") + mac(source) + struct.pack("!H", kind) + payload


def ipv6(source: IPv6Address, body: bytes, *, header: int = ICMPV6, to: IPv6Address = ALL_NODES) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(body), header, 255) + source.packed + to.packed + body


def icmp(kind: int, target: IPv6Address | None = None, mark: bytes = b"") -> bytes:
    return struct.pack("!BBHI", kind, 0, 0, 0) + (target.packed if target is not None else bytes(16)) + mark


def behind(header: int, kind: int, body: bytes) -> tuple[int, bytes]:
    """Prepend an extension header to the body, which incomplete filters do not parse."""
    if header == FRAGMENT:
        return header, struct.pack("!BBHI", kind, 0, 0, 7) + body
    return header, struct.pack("!BB6s", kind, 0, b"\x01\x04\0\0\0\0") + body


def extended(header: int, body: bytes) -> bytes:
    kind, whole = behind(header, ICMPV6, body)
    return ipv6(OWN_LINK_LOCAL, whole, header=kind)


ALLOWED = {
    "its own address": frame(ipv6(OWN, icmp(ECHO))),
    "its link-local address": frame(ipv6(OWN_LINK_LOCAL, icmp(ECHO))),
    "an advertisement of its own address": frame(ipv6(OWN, icmp(ADVERT, OWN))),
    "an advertisement of its link-local address": frame(ipv6(OWN_LINK_LOCAL, icmp(ADVERT, OWN_LINK_LOCAL))),
    "a question for another's address": frame(ipv6(OWN, icmp(SOLICIT, OTHER))),
    "the question whether its address is free": frame(ipv6(NOBODY, icmp(SOLICIT, OWN))),
    "a call for routers from nobody": frame(ipv6(NOBODY, icmp(ROUTER_SOLICIT))),
    "a multicast report from nobody": frame(ipv6(NOBODY, icmp(LISTENER_REPORT))),
}
FORBIDDEN = {
    "another guest's address": frame(ipv6(OTHER, icmp(ECHO))),
    "another guest's link-local address": frame(ipv6(OTHER_LINK_LOCAL, icmp(ECHO))),
    "the gateway's address": frame(ipv6(GATEWAY, icmp(ECHO))),
    "an address nobody has": frame(ipv6(IPv6Address(int(GATEWAY) + 99), icmp(ECHO))),
    "traffic from nobody": frame(ipv6(NOBODY, icmp(ECHO))),
    "another guest's MAC": frame(ipv6(OWN, icmp(ECHO)), source=VICTIM.mac),
    "IPv4": frame(bytes.fromhex("4500001466660000400100810a0000010a000002"), kind=0x0800),
    "ARP": frame(bytes(40), kind=0x0806),
    "a VLAN tag": frame(struct.pack("!HH", 7, 0x86DD) + ipv6(OWN, icmp(ECHO)), kind=0x8100),
    "a router's advertisement": frame(ipv6(OWN_LINK_LOCAL, icmp(ROUTER_ADVERT))),
    "a router's advertisement behind options": frame(extended(HOP_BY_HOP, icmp(ROUTER_ADVERT))),
    "a router's advertisement behind more options": frame(extended(DESTINATION, icmp(ROUTER_ADVERT))),
    "a router's advertisement as a fragment": frame(extended(FRAGMENT, icmp(ROUTER_ADVERT))),
    "a redirect": frame(ipv6(OWN_LINK_LOCAL, icmp(REDIRECT, OTHER))),
    "a DHCP server's answer": frame(ipv6(OWN_LINK_LOCAL, struct.pack("!HHHH", 547, 546, 8, 0), header=UDP)),
    "a datagram to DHCP clients": frame(ipv6(OWN, struct.pack("!HHHH", 40000, 546, 8, 0), header=UDP)),
    "an advertisement of another's address": frame(ipv6(OWN, icmp(ADVERT, OTHER))),
    "an advertisement of the gateway's address": frame(ipv6(OWN, icmp(ADVERT, GATEWAY))),
    "an advertisement hidden behind options": frame(extended(DESTINATION, icmp(ADVERT, GATEWAY))),
    "the question whether another's address is free": frame(ipv6(NOBODY, icmp(SOLICIT, OTHER))),
}


def on(vni: int, number: int, *, gateway: bool = True) -> NicSpec:
    """An interface on another network with its own prefix."""
    prefix = IPv6Network((int(PREFIX.network.network_address) + (vni << 64), 64))
    mac = f"02:00:f1:00:{vni & 0xFF:02x}:{number:02x}"
    return VICTIM.model_copy(
        update={
            "port_id": str(uuid.uuid4()),
            "vni": vni,
            "mac": mac,
            "addresses": (IPv6Interface((slaac_address(IPv6Interface(prefix), mac), 64)),),
            "gateway": prefix[1] if gateway else None,
        }
    )


@pytest.fixture
def taps(make_host: HostMaker, blank_image: Path) -> Iterator[tuple[int, int]]:
    """The taps of a hostile guest and its neighbour, without qemu."""
    host = make_host(OneImage(blank_image))
    host.links.ensure_segment(HOSTILE)
    host.guard.ensure([HOSTILE, VICTIM])
    hostile, victim = host.links.open_tap(HOSTILE, 65534), host.links.open_tap(VICTIM, 65534)
    yield hostile, victim
    os.close(hostile)
    os.close(victim)
    host.guard.remove([HOSTILE, VICTIM])
    assert host.guard.list_guarded_taps() == set()
    host.close_down()


def seen(taps: tuple[int, int], sent: bytes, round_: int) -> bool:
    """Return whether the neighbour receives a frame; a permitted frame sent afterwards ends the wait."""
    hostile, victim = taps
    last = frame(ipv6(OWN, icmp(ECHO, None, b"the last one %d" % round_)))
    os.write(hostile, VNET_HEADER + sent)
    os.write(hostile, VNET_HEADER + last)
    found = False
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if select.select([victim], [], [], 1)[0]:
            received = os.read(victim, 4096)[len(VNET_HEADER) :]
            if received == last:
                return found
            found = found or received == sent
    raise AssertionError("not even the innocent frame arrived")


def test_a_hostile_guest_sends_only_from_its_own_addresses(taps: tuple[int, int]) -> None:
    passed = [what for number, (what, sent) in enumerate(FORBIDDEN.items()) if seen(taps, sent, number)]
    assert passed == []
    held = [what for number, (what, sent) in enumerate(ALLOWED.items()) if not seen(taps, sent, 100 + number)]
    assert held == []


def test_allowed_address_pairs_extend_the_permitted_sources(make_host: HostMaker, blank_image: Path) -> None:
    """A virtual router's MAC with one address, and a prefix with the port's MAC; other combinations are dropped."""
    virtual, shared = "00:00:5e:00:02:01", IPv6Address(int(GATEWAY) + 6)
    some = IPv6Network((int(PREFIX.network.network_address) + (5 << 32), 96))
    pairs = ((virtual, IPv6Network(shared)), (HOSTILE.mac, some))
    nic, within, beyond = HOSTILE.model_copy(update={"allowed": pairs}), some[77], IPv6Address(int(some[-1]) + 1)
    host = make_host(OneImage(blank_image), nat64=Nat64())
    host.links.ensure_segment(nic)
    host.guard.ensure([nic, VICTIM])
    translated = IPv6Address("64:ff9b::c105:5d0a")
    taps = host.links.open_tap(nic, 65534), host.links.open_tap(VICTIM, 65534)
    allowed = (
        frame(ipv6(shared, icmp(ECHO)), source=virtual),
        frame(ipv6(shared, icmp(ADVERT, shared)), source=virtual),
        frame(ipv6(within, icmp(ECHO))),
        frame(ipv6(within, icmp(ADVERT, within))),
        frame(ipv6(OWN, icmp(ECHO), to=translated)),
        *ALLOWED.values(),
    )
    forbidden = (
        frame(ipv6(shared, icmp(ECHO))),
        frame(ipv6(within, icmp(ECHO)), source=virtual),
        frame(ipv6(beyond, icmp(ECHO))),
        frame(ipv6(within, icmp(ADVERT, beyond))),
        frame(ipv6(within, bytes(20), header=TCP, to=METADATA_ADDRESS)),
        # Each source uses an address of the NAT64 pool.
        frame(ipv6(within, icmp(ECHO), to=translated)),
        *FORBIDDEN.values(),
    )
    assert [number for number, sent in enumerate(allowed) if not seen(taps, sent, number)] == []
    assert [number for number, sent in enumerate(forbidden) if seen(taps, sent, 100 + number)] == []
    # A flood of sources does not fill the neighbour table.
    for number in range(2000):
        os.write(taps[0], VNET_HEADER + frame(ipv6(some[number], icmp(SOLICIT, OTHER))))
    assert host.guard.count_dropped(nic) > 300
    # The whole prefix of its own address, for guests with temporary addresses.
    host.guard.ensure([nic.model_copy(update={"allowed": ((HOSTILE.mac, PREFIX.network),)})])
    assert [number for number, sent in enumerate(allowed[2:]) if not seen(taps, sent, 300 + number)] == []
    # After removal of the allowed addresses the original rules apply.
    host.guard.ensure([HOSTILE])
    assert [number for number, sent in enumerate(allowed[:4]) if seen(taps, sent, 200 + number)] == []
    for tap in taps:
        os.close(tap)
    host.close_down()


def test_guests_of_an_isolated_network_do_not_reach_each_other(make_host: HostMaker, blank_image: Path) -> None:
    host = make_host(OneImage(blank_image))
    apart = [nic.model_copy(update={"isolated": True}) for nic in (HOSTILE, VICTIM)]
    host.links.ensure_segment(HOSTILE)
    host.guard.ensure(apart)
    taps = host.links.open_tap(HOSTILE, 65534), host.links.open_tap(VICTIM, 65534)
    sent = frame(ipv6(OWN, icmp(ECHO, None, b"before")))
    os.write(taps[0], VNET_HEADER + sent)
    host.guard.ensure([HOSTILE, VICTIM])
    assert seen(taps, frame(ipv6(OWN, icmp(ECHO))), 1), "until they may"
    host.guard.ensure(apart)
    with pytest.raises(AssertionError, match="not even"):
        seen(taps, sent, 2)
    host.guard.remove(apart)
    for tap in taps:
        os.close(tap)
    host.close_down()


def test_forbidden_frames_arrive_without_rules(make_host: HostMaker, blank_image: Path) -> None:
    """Verifies that the frames of the test above are valid."""
    host = make_host(OneImage(blank_image))
    host.links.ensure_segment(HOSTILE)
    hostile, victim = host.links.open_tap(HOSTILE, 65534), host.links.open_tap(VICTIM, 65534)
    held = [what for n, (what, sent) in enumerate(FORBIDDEN.items()) if not seen((hostile, victim), sent, n)]
    os.close(hostile)
    os.close(victim)
    host.close_down()
    assert held == []


def test_every_drop_is_counted(make_host: HostMaker, blank_image: Path) -> None:
    host = make_host(OneImage(blank_image))
    host.links.ensure_segment(HOSTILE)
    host.guard.ensure([HOSTILE])
    tap = host.links.open_tap(HOSTILE, 65534)
    before = host.guard.count_dropped(HOSTILE)
    for sent in FORBIDDEN.values():
        os.write(tap, VNET_HEADER + sent)
    assert host.guard.count_dropped(HOSTILE) - before == len(FORBIDDEN)
    os.close(tap)
    host.close_down()


def test_flushed_rules_are_repaired(make_host: HostMaker, blank_image: Path) -> None:
    image = image_ref(blank_image, "raw", 1 << 20)
    one, two = make_spec(1, image), make_spec(2, image)
    host = make_host(OneImage(blank_image))
    host.ensure_running(one)
    host.ensure_running(two)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    assert host.guard.list_guarded_taps() == set()
    host.repair()
    assert host.guard.list_guarded_taps() == {host.links.tap(spec.nics[0].port_id) for spec in (one, two)}
    host.remove(one.id)
    assert host.guard.list_guarded_taps() == {host.links.tap(two.nics[0].port_id)}
    host.remove(two.id)
    assert host.guard.list_guarded_taps() == set()


def test_a_hostile_guest_cannot_spoof_or_bypass_isolation(
    make_host: HostMaker, tiny_image: Path, ssh_key: tuple[Path, KeySpec]
) -> None:
    private, public = ssh_key
    image = image_ref(tiny_image, "qcow2", 44_040_192)
    hostile, victim = make_spec(1, image, key=public), make_spec(2, image, key=public)
    closed, elsewhere = 0x667, 0x668
    hostile = hostile.model_copy(update={"nics": (*hostile.nics, on(closed, 1, gateway=False))})
    victim = victim.model_copy(update={"nics": (*victim.nics, on(closed, 2, gateway=False), on(elsewhere, 2))})
    host = make_host(OneImage(tiny_image), forward=True)
    host.ensure_running(hostile)
    host.ensure_running(victim)
    host.repair()
    ssh(hostile, private, "true")
    ssh(victim, private, "true")
    stolen = IPv6Address(int(GATEWAY) + 7)
    address = victim.nics[0].addresses[0].ip
    assert "0% packet loss" in ssh(hostile, private, f"ping6 -c 2 {address}")
    before = host.guard.count_dropped(hostile.nics[0])
    ssh(hostile, private, f"ip -6 addr add {stolen}/64 dev eth0; ping6 -c 2 -W 1 -I {stolen} {address} || true")
    output = ssh(hostile, private, f"ping6 -c 2 -W 1 -I {stolen} {address} || true")
    assert "100% packet loss" in output
    assert host.guard.count_dropped(hostile.nics[0]) > before
    assert "0% packet loss" in ssh(hostile, private, f"ip -6 addr del {stolen}/64 dev eth0; ping6 -c 2 {address}")

    # Between networks, by any route. One-way delivery counts, without a reply.
    def arrives(link: str, to: IPv6Address, via: str, into: str) -> bool:
        count = f"awk '/InEchos/ {{ print $2 }}' /proc/net/dev_snmp6/{into}"
        earlier = ssh(victim, private, count)
        way = f"{to}/128 {via} dev {link}"
        ssh(hostile, private, f"ip -6 route add {way}; ping6 -c 2 -W 1 -I {link} {to}; ip -6 route del {way}")
        return ssh(victim, private, count) != earlier

    router = f"via {METADATA_ADDRESS}"
    inside, other = (nic.addresses[0].ip for nic in victim.nics[1:])
    assert arrives("eth0", other, router, "eth2"), "this is what a gateway is for"
    assert not arrives("eth0", other, "", "eth2"), "as if it were a neighbour"
    assert arrives("eth1", inside, "", "eth1")
    assert not arrives("eth1", other, router, "eth2"), "out of a network without a gateway"
    assert not arrives("eth0", inside, router, "eth1"), "into one"
    for spec in (hostile, victim):
        apart = [nic.model_copy(update={"isolated": True}) for nic in spec.nics]
        host.ensure_nics(spec.model_copy(update={"nics": (*apart,)}))
    assert not arrives("eth0", address, "", "eth0"), "a neighbour that is kept apart"
    assert not arrives("eth0", address, router, "eth0"), "by way of the router"
    assert arrives("eth0", other, router, "eth2"), "which is there for all others"
    host.remove(hostile.id)
    host.remove(victim.id)
