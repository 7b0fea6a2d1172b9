"""Several hosts in separate namespaces: a network spans them, and each host is the gateway of its own guests.

    guest - host 1 - \
    guest - host 2 - - one Ethernet segment - the world outside (the test itself)
    guest - host 3 - /
"""

import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import cast

import pytest

from compute_agent.agent import Agent
from compute_api.rpc.messages import Conductor, DesiredServer, HostState
from compute_api.states import VmState
from hypervisor.api.spec import HostReport, KeySpec, MachineReport, MachineSpec
from hypervisor.base.config import HostConfig
from hypervisor.driver import QemuHypervisor
from hypervisor.guest_data.metadata import MetadataService
from hypervisor.network.links import METADATA_ADDRESS
from tests.host.support import (
    PREFIX,
    HostMaker,
    OneImage,
    image_ref,
    inside,
    make_spec,
    network_namespace,
    ssh,
    traces,
)

OUTSIDE = IPv6Address("fd00:aaaa::ff")
VNI = 0x666
ASK = rf"printf 'GET /openstack/latest/meta_data.json HTTP/1.0\r\n\r\n' | nc {METADATA_ADDRESS}%eth0 80"


def ip(*words: object) -> str:
    return subprocess.run(["ip", *map(str, words)], check=True, capture_output=True, text=True).stdout


class Host:
    """A host with its own namespace, link to the underlay, hypervisor and state directory."""

    def __init__(
        self, number: int, state: Path, installation: str, image: Path, peers: tuple[IPv6Address, ...]
    ) -> None:
        self.number, self.state, self.image = number, state, OneImage(image)
        self.address = IPv6Address(f"fd00:aaaa::{number}")
        self.config = HostConfig(state, installation, f"host{number}", "eth0", peers=peers, accelerator="tcg")
        self.boot()

    def boot(self) -> None:
        self.namespace = network_namespace()
        name = f"to{self.number}"
        hardware = f"02:aa:00:00:00:{self.number:02x}"  # stable, like the MAC of a physical interface
        ip("link", "add", "dev", name, "type", "veth", "peer", "name", "eth0", "address", hardware)
        ip("link", "set", "dev", "eth0", "netns", f"/proc/{os.getpid()}/fd/{self.namespace}")
        ip("link", "set", "dev", name, "master", "core", "up")
        with inside(self.namespace):
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
            ip("link", "set", "dev", "eth0", "up")
            ip("address", "add", f"{self.address}/64", "dev", "eth0", "nodad")
            ip("route", "add", "default", "via", OUTSIDE)
        self.start()

    def change(self, **settings: object) -> None:
        """Restart Sixstack with other settings while guests keep running."""
        self.metadata.close()
        self.hypervisor.close()
        self.config = replace(self.config, **settings)
        self.start()

    def start(self) -> None:
        with inside(self.namespace):
            self.hypervisor = QemuHypervisor(self.config, self.image)
            self.hypervisor.repair()
            self.metadata = MetadataService(self.hypervisor.segments, self.hypervisor.paths, self.hypervisor.spec)
            self.metadata.start()

    def run(self, spec: MachineSpec) -> MachineReport:
        with inside(self.namespace):
            return self.hypervisor.ensure_running(spec)

    def lose_power(self) -> None:
        """Kill all processes and remove the namespace with its links and rules; keep the disk."""
        with inside(self.namespace):
            for machine_id in self.hypervisor.paths.machine_ids():
                running = self.hypervisor.machines.process_of(self.hypervisor.paths.machine(machine_id))
                if running is not None:
                    running.end()
            radvd = self.hypervisor.router.find_process()
            if radvd is not None:
                helpers = radvd.children()
                radvd.end()
                assert all(helper.wait(5) for helper in helpers)
        self.metadata.close()
        self.hypervisor.close()
        os.close(self.namespace)
        deadline = time.monotonic() + 10
        while Path(f"/sys/class/net/to{self.number}").exists() or f"to{self.number}@" in ip("-brief", "link"):
            assert time.monotonic() < deadline, "somebody is still inside"
            time.sleep(0.05)

    def close(self) -> None:
        with inside(self.namespace):
            for report in self.hypervisor.reports():
                self.hypervisor.remove(report.id)
            self.metadata.close()
            self.hypervisor.close_down()
            self.hypervisor.close()

    def left(self) -> list[str]:
        """List resources that `close` has leaked."""
        with inside(self.namespace):
            found = traces(self.config.installation, self.state)
        os.close(self.namespace)
        return found


class Paper:
    """A conductor that assigns one running server to a host and has no operations."""

    def __init__(self, spec: MachineSpec) -> None:
        self._spec = spec

    def register(self, _report: HostReport) -> None:
        pass

    def requeue(self) -> int:
        return 0

    def host_state(self) -> HostState:
        wanted = DesiredServer(self._spec.id, VmState.ACTIVE, None, self._spec.generation)
        return HostState((), (), (), [wanted], frozenset())

    def spec(self, machine_id: str) -> MachineSpec | None:
        return self._spec if machine_id == self._spec.id else None


def firewall() -> str:
    """The firewall rules from the documentation, adapted to these hosts."""
    text = (Path(__file__).parents[2] / "docs/network.md").read_text()
    [rules] = re.findall(r"^    table inet host_firewall \{\n(?:(?:    .*)?\n)*?    \}\n", text, re.MULTILINE)
    assert isinstance(rules, str)
    return rules.replace("eth1", "eth0").replace("fd00:1::/64", "fd00:aaaa::/64")


MakeHosts = Callable[..., list[Host]]


@pytest.fixture
def make_hosts(namespace: None, tmp_path: Path, tiny_image: Path) -> Iterator[MakeHosts]:
    """Create hosts on one Ethernet segment."""
    # A bridge without a configured MAC takes the lowest MAC of its ports.
    ip("link", "add", "dev", "core", "address", "02:aa:00:00:00:ff", "type", "bridge", "mcast_snooping", 0)
    ip("link", "set", "dev", "core", "up")
    ip("address", "add", f"{OUTSIDE}/64", "dev", "core", "nodad")
    made: list[Host] = []
    installation = secrets.token_hex(2)

    def make(number: int, peers: tuple[IPv6Address, ...] = ()) -> list[Host]:
        for n in range(1, number + 1):
            made.append(Host(n, tmp_path / f"state{n}", installation, tiny_image, peers))
        # The whole prefix is routed to the first host.
        ip("route", "add", PREFIX.network, "via", made[0].address)
        return made

    try:
        yield make
    finally:
        for host in made:
            host.close()
    assert [trace for host in made for trace in host.left()] == []


def guests(hosts: list[Host], tiny_image: Path, key: KeySpec) -> list[MachineSpec]:
    """Start one guest on each host."""
    image = image_ref(tiny_image, "qcow2", 44_040_192)
    specs = [make_spec(host.number, image, key=key, vni=VNI) for host in hosts]
    for host, spec in zip(hosts, specs, strict=True):
        host.run(spec)
    return specs


def pings(spec: MachineSpec, key: Path, address: IPv6Address, *more: object) -> bool:
    return "0% packet loss" in ssh(spec, key, f"ping6 -c 2 {' '.join(map(str, more))} {address}")


def test_a_network_spans_hosts_and_survives_host_failures(
    make_hosts: MakeHosts, tiny_image: Path, ssh_key: tuple[Path, KeySpec]
) -> None:
    key, public = ssh_key
    hosts = make_hosts(3)
    one, two, three = specs = guests(hosts, tiny_image, public)
    for spec, host in zip(specs, hosts, strict=True):
        # From outside: requests enter through the first host, replies leave through the guest's own host.
        output = ssh(spec, key, f"hostname; ping6 -c 1 {OUTSIDE}; ip -6 route; ip -6 neigh; {ASK}")
        assert output.startswith(f"{spec.hostname}\n")
        assert "0% packet loss" in output
        # The guest's own host is its only router and its metadata service.
        assert re.findall(r"^default via (\S+)", output, re.MULTILINE) == [str(METADATA_ADDRESS)]
        assert re.findall(rf"^{METADATA_ADDRESS} .* lladdr (\S+)", output, re.MULTILINE) == [
            host.hypervisor.links.bridge_mac(VNI)
        ]
        assert spec.id in output
    for spec, other in ((one, two), (two, three), (three, one)):
        assert len(ssh(other, key, "head -c 200000 /dev/zero", through=spec)) == 200_000
    # 1430 bytes of IPv6 in 1500 bytes of the underlay.
    assert pings(one, key, two.nics[0].addresses[0].ip, "-s", 1382)

    # The third host loses power: guests elsewhere are unaffected, and it recovers from its disk.
    hosts[2].lose_power()
    assert pings(two, key, OUTSIDE)
    assert len(ssh(two, key, "head -c 1000 /dev/zero", through=one)) == 1000
    hosts[2].boot()
    agent = Agent(cast(Conductor, Paper(three)), hosts[2].hypervisor, threads=1, grace_seconds=1, restart_stopped=True)
    with inside(hosts[2].namespace):
        agent.prepare()
    assert ssh(three, key, "hostname", through=two).strip() == three.hostname
    assert pings(one, key, three.nics[0].addresses[0].ip)

    # Guests reach no services of other hosts. The firewall rules of docs/network.md leave them full connectivity.
    gateway = one.nics[0].gateway
    with inside(hosts[0].namespace):
        offered = socket.create_server((str(gateway), 2222), family=socket.AF_INET6)
    with offered:
        ssh(one, key, f"echo | nc -w 3 {gateway} 2222 || true")
        offered.settimeout(0)
        with pytest.raises(BlockingIOError):
            offered.accept()
    for host in hosts:
        with inside(host.namespace):
            subprocess.run(["nft", "-f", "-"], input=firewall(), text=True, check=True)
    assert one.id in ssh(one, key, f"ping6 -c 1 {OUTSIDE}; {ASK}")
    for spec, other in ((one, two), (two, three), (three, one)):
        assert ssh(other, key, "hostname", through=spec).strip() == other.hostname


def test_hosts_without_multicast_flood_to_their_peers(
    make_hosts: MakeHosts, tiny_image: Path, ssh_key: tuple[Path, KeySpec]
) -> None:
    key, public = ssh_key
    peers = tuple(IPv6Address(f"fd00:aaaa::{number}") for number in (1, 2, 3))
    one, two, three = guests(hosts := make_hosts(3, peers), tiny_image, public)
    for spec in (one, two, three):
        assert ssh(spec, key, "hostname").strip() == spec.hostname
    for spec, other in ((one, two), (two, three), (three, one)):
        assert ssh(other, key, "hostname", through=spec).strip() == other.hostname
        assert pings(spec, key, other.nics[0].addresses[0].ip)
    links = hosts[0].hypervisor.links
    with inside(hosts[0].namespace):
        vxlan = ip("-details", "link", "show", "dev", links.vxlan(VNI))
        flooded = subprocess.run(["bridge", "fdb", "show", "dev", links.vxlan(VNI)], capture_output=True, text=True)
        before = links.list_segments()
        hosts[0].hypervisor.ensure_running(one)
        hosts[0].hypervisor.segments.claim(one.id, one.nics)
        assert links.list_segments() == before, "nothing is made anew without a reason"
    assert "group ff05" not in vxlan
    assert all(f"00:00:00:00:00:00 dst {peer} " in flooded.stdout for peer in peers[1:])
    assert f"dst {peers[0]} " not in flooded.stdout

    # Isolated guests communicate with the outside, also through the other host, but not with each other.
    for host in hosts:
        host.change(isolate_guests=True)
    address = two.nics[0].addresses[0].ip
    output = ssh(one, key, f"ping6 -c 1 {OUTSIDE}; ping6 -c 2 -W 1 {address} || true")
    assert re.findall(r"(\d+)% packet loss", output) == ["0", "100"]
    assert ssh(two, key, "hostname").strip() == two.hostname
    # Repeat without the neighbor cache entry of the guest.
    with inside(hosts[0].namespace):
        ip("-6", "neighbour", "flush", "to", address)
    assert ssh(two, key, "hostname").strip() == two.hostname


def test_changed_peers_apply_at_the_next_launch(make_host: HostMaker, blank_image: Path) -> None:
    """Multicast, then peers, then other peers: the segment changes at the next launch only."""
    ip("address", "add", "fd00:aaaa::1/64", "dev", "lo", "nodad")
    nic = make_spec(1, None).nics[0]
    one, two, three = (IPv6Address(f"fd00:aaaa::{number}") for number in (1, 2, 3))
    before: tuple[int, int] = (0, 0)
    for peers in ((), (one, two), (two, three), ()):
        host = make_host(OneImage(blank_image), peers=peers)
        made = host.links.ensure_segment(nic)
        assert made[0] == before[0] or before == (0, 0), "the bridge stays, with the guests on it"
        assert made[1] != before[1]
        assert host.links.ensure_segment(nic) == made
        fdb = subprocess.run(
            ["bridge", "fdb", "show", "dev", host.links.vxlan(nic.vni)], capture_output=True, text=True
        )
        flooded = set(re.findall(r"^00:00:00:00:00:00 dst (\S+)", fdb.stdout, re.MULTILINE))
        assert flooded == ({str(peer) for peer in peers if peer != one} or {"ff05::666"})
        before = made
    host.close_down()
