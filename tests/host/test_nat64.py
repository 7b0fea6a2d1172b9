"""NAT64 and DNS64: an IPv6-only guest communicates with an IPv4-only network.

guest - host - uplink - IPv4 network: a name server, a web server and a client
"""

import http.server
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from hypervisor.api.errors import HostUnfit
from hypervisor.api.spec import KeySpec
from hypervisor.base.config import Nat64
from hypervisor.network.nat64 import PROGRAMS
from tests.host.support import HostMaker, OneImage, image_ref, inside, make_spec, network_namespace, ssh
from tests.host.taps import guest_on, udp
from tests.host.test_spoofing import OWN, UDP, ipv6

# Public addresses, because tayga rejects private ones with the well-known prefix. Packets stay in the namespaces.
HOST, WORLD, MAPPED = IPv4Address("193.5.93.1"), IPv4Address("193.5.93.10"), IPv4Address("193.5.94.50")
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)), reason=f"NAT64 needs {' and '.join(PROGRAMS)}: make setup"
)
PAGE = b"a page from an IPv4-only server\n"


def ip(*words: object) -> None:
    subprocess.run(["ip", *map(str, words)], check=True)


class NameServer(threading.Thread):
    """A DNS server that answers every name with one A record and no AAAA records."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((str(WORLD), 53))

    def run(self) -> None:
        while True:
            try:
                question, client = self.socket.recvfrom(4096)
            except OSError:
                return
            end = question.index(b"\0", 12) + 5
            asked = struct.unpack("!H", question[end - 4 : end - 2])[0]
            answers = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + WORLD.packed if asked == 1 else b""
            header = question[:2] + b"\x85\x80" + struct.pack("!HHHH", 1, asked == 1, 0, 0)
            self.socket.sendto(header + question[12:end] + answers, client)


class WebServer(http.server.ThreadingHTTPServer):
    clients: list[str]


class Page(http.server.BaseHTTPRequestHandler):
    server: WebServer

    def do_GET(self) -> None:
        self.server.clients.append(self.client_address[0])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def world(namespace: None) -> Iterator[tuple[int, WebServer]]:
    """A namespace behind the host's uplink with an IPv4 web server."""
    outside = network_namespace()
    ip("link", "add", "dev", "uplink", "type", "veth", "peer", "name", "eth0")
    ip("link", "set", "dev", "eth0", "netns", f"/proc/{os.getpid()}/fd/{outside}")
    ip("address", "add", f"{HOST}/24", "dev", "uplink")
    ip("link", "set", "dev", "uplink", "up")
    ip("route", "add", "default", "via", WORLD)
    with inside(outside):
        ip("address", "add", f"{WORLD}/24", "dev", "eth0")
        ip("link", "set", "dev", "eth0", "up")
        ip("route", "add", MAPPED, "via", HOST)
        names, web = NameServer(), WebServer((str(WORLD), 80), Page)
    web.clients = []
    names.start()
    serving = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    serving.start()
    yield outside, web
    web.shutdown()
    web.server_close()
    names.socket.close()
    os.close(outside)


def test_an_ipv6_only_guest_communicates_with_ipv4_only_hosts(
    make_host: HostMaker, world: tuple[int, WebServer], tiny_image: Path, ssh_key: tuple[Path, KeySpec]
) -> None:
    outside, web = world
    private, public = ssh_key
    spec = make_spec(1, image_ref(tiny_image, "qcow2", 44_040_192), key=public)
    host = make_host(OneImage(tiny_image), uplink="uplink", nat64=Nat64(forwarders=(WORLD,)))
    host.check()
    host.repair()
    host.ensure_running(spec)
    # By name: the resolver from the config drive synthesizes an AAAA record (DNS64).
    get = r"printf 'GET / HTTP/1.0\r\n\r\n' | nc web.example.com 80; nslookup web.example.com"
    output = ssh(spec, private, get)
    assert PAGE.decode() in output
    assert "64:ff9b::c105:5d0a" in output
    assert web.clients == [str(HOST)], "the world sees the host's address"
    first, unbound = host.translator.find_process("tayga"), host.translator.find_process("unbound")
    assert first is not None
    assert unbound is not None
    status = Path(f"/proc/{first.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status

    # A mapping for another guest restarts tayga, which keeps the pool address of each guest.
    mappings = ((MAPPED, IPv6Address("fd00::7")),)
    other = make_host(OneImage(tiny_image), uplink="uplink", nat64=Nat64(mappings=mappings, forwarders=(WORLD,)))
    other.repair()
    leases = other.paths.state / "nat64/leases/dynamic.map"
    assert str(spec.nics[0].addresses[0].ip) in leases.read_text().split()

    # Inbound: an IPv4-only client logs in through an IPv4 address mapped to the guest.
    mappings = ((MAPPED, spec.nics[0].addresses[0].ip),)
    later = make_host(OneImage(tiny_image), uplink="uplink", nat64=Nat64(mappings=mappings, forwarders=(WORLD,)))
    later.repair()
    assert not first.is_alive()
    assert later.translator.find_process("unbound") == unbound, "what has not changed goes on"
    words = ["ssh", "-i", str(private), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    with inside(outside):
        done = subprocess.run([*words, "-o", "BatchMode=yes", f"root@{MAPPED}", "hostname"], capture_output=True)
    assert done.stdout == b"vm1\n", done.stderr

    # Failed processes are restarted, and the guest's source is its mapped address.
    second = later.translator.find_process("tayga")
    assert second is not None
    second.end()
    unbound.end()
    later.repair()
    assert PAGE.decode() in ssh(spec, private, get)
    assert web.clients[-1] == str(MAPPED)

    # An unmapped address is routed as before.
    last = make_host(OneImage(tiny_image), uplink="uplink", nat64=host.config.nat64)
    routes = ["ip", "route", "show", "dev", host.links.tunnel_name()]
    assert str(MAPPED) in subprocess.run(routes, check=True, capture_output=True, text=True).stdout
    last.repair()
    left = subprocess.run(routes, check=True, capture_output=True, text=True).stdout
    assert str(MAPPED) not in left
    assert "192.168.240.0/20" in left

    # A mapping of the guest's port is added and removed by specs of the control plane.
    nic = spec.nics[0].model_copy(update={"ipv4_address": MAPPED})
    last.ensure_nics(spec.model_copy(update={"nics": (nic,)}))
    last.repair()
    with inside(outside):
        done = subprocess.run([*words, "-o", "BatchMode=yes", f"root@{MAPPED}", "hostname"], capture_output=True)
    assert done.stdout == b"vm1\n", done.stderr
    last.ensure_nics(spec)
    last.repair()
    assert str(MAPPED) not in subprocess.run(routes, check=True, capture_output=True, text=True).stdout
    # Without NAT64 settings all its resources are removed.
    off = make_host(OneImage(tiny_image), uplink="uplink")
    off.repair()
    assert off.translator.find_process("tayga") is None
    off.remove(spec.id)


def test_translator_and_resolver_reject_outside_clients(
    make_host: HostMaker, world: tuple[int, WebServer], blank_image: Path
) -> None:
    outside, web = world
    host = make_host(OneImage(blank_image), uplink="uplink", nat64=Nat64(forwarders=(WORLD,)))
    host.repair()
    ip("address", "add", "fd00:aaaa::1/64", "dev", "uplink", "nodad")
    with inside(outside):
        ip("address", "add", "fd00:aaaa::2/64", "dev", "eth0", "nodad")
        ip("route", "add", "default", "via", "fd00:aaaa::1")
        for address, port in ((f"64:ff9b::{WORLD}", 80), (str(host.translator.resolver), 53)):
            with pytest.raises(OSError), socket.create_connection((address, port), timeout=1):
                pass
    with socket.create_connection((str(host.translator.resolver), 53), timeout=5):
        pass
    assert web.clients == []
    host.close_down()
    assert not (host.paths.state / "nat64").exists()


def test_guests_reach_listed_private_networks_only(
    make_host: HostMaker, world: tuple[int, WebServer], blank_image: Path
) -> None:
    """NAT64 with a custom prefix reaches neither other private networks nor services of the host."""
    outside, _ = world
    prefix = IPv6Network("2a0a:e5c1:ffff:64::/96")
    listed, private, metadata = map(IPv4Address, ("10.1.0.9", "10.2.0.9", "169.254.169.254"))
    host = make_host(
        OneImage(blank_image),
        uplink="uplink",
        nat64=Nat64(prefix=prefix),
        nat64_allow=(IPv4Network("10.1.0.0/16"),),
    )
    host.repair()
    sockets = {}
    for address in (listed, private, metadata):
        ip("route", "add", address, "via", WORLD)
        with inside(outside):
            ip("address", "add", f"{address}/32", "dev", "lo")
            sockets[address] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sockets[address].bind((str(address), 9997))
    with inside(outside):
        sockets[WORLD] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sockets[WORLD].bind((str(WORLD), 9997))
    sockets[HOST] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sockets[HOST].bind(("", 9997))
    with guest_on(host) as guest:
        # tayga preserves order: the expected packet is sent last.
        for address in (private, metadata, HOST, listed, WORLD):
            to = prefix[int(address)]
            guest.send(ipv6(OWN, udp(OWN, to, 9997, b"translated"), header=UDP, to=to))
        for address in (listed, WORLD):
            sockets[address].settimeout(10)
            assert sockets[address].recv(100) == b"translated"
        for address in (private, metadata, HOST):
            sockets[address].setblocking(False)
            with pytest.raises(BlockingIOError):
                sockets[address].recv(100)
    for one in sockets.values():
        one.close()
    host.close_down()


def test_a_forwarding_host_keeps_accepting_router_advertisements(make_host: HostMaker, blank_image: Path) -> None:
    ip("link", "add", "dev", "outside", "type", "veth", "peer", "name", "inside")
    host = make_host(OneImage(blank_image), forward=True)
    host.repair()
    settings = Path("/proc/sys/net/ipv6/conf")
    assert (settings / "all/forwarding").read_text().strip() == "1"
    assert (settings / "outside/accept_ra").read_text().strip() == "2"
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"


def test_invalid_nat64_settings_raise_readable_errors(
    make_host: HostMaker, blank_image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="/96"):
        Nat64(prefix=IPv6Network("64:ff9b::/90"))
    with pytest.raises(ValueError, match="cannot be mapped"):
        Nat64(mappings=((IPv4Address("192.168.240.9"), IPv6Address("fd00::1")),))
    host = make_host(OneImage(blank_image), nat64=Nat64())
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostUnfit, match="apt install tayga"):
        host.translator.check()
