"""Metadata service: a guest is identified by its network port and receives only its own metadata."""

import base64
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from hypervisor.api.spec import KeySpec, MachineSpec
from hypervisor.base.addresses import slaac_address
from hypervisor.driver import QemuHypervisor
from hypervisor.guest_data import metadata
from hypervisor.guest_data.metadata import MetadataService
from hypervisor.network.links import LINK_LOCAL, METADATA_ADDRESS
from tests.host.support import (
    HostMaker,
    OneImage,
    image_ref,
    inside,
    make_spec,
    network_namespace,
    ssh,
    wait_for_source,
)

SCRIPT = base64.b64encode(b"#!/bin/sh\ntrue\n").decode()
KEY = KeySpec(name="laptop", type="ssh", data="ssh-ed25519 AAAA laptop")


class Guest:
    """A simulated guest: a namespace linked to a segment, with the MAC and address of a machine."""

    def __init__(self, host: QemuHypervisor, spec: MachineSpec, number: int = 0) -> None:
        self.namespace = network_namespace()
        nic = spec.nics[number]
        tap = f"g{number}{spec.hostname}"
        subprocess.run(["ip", "link", "add", "dev", tap, "type", "veth", "peer", "name", "eth0"], check=True)
        move = ["ip", "link", "set", "dev", "eth0", "netns", f"/proc/{os.getpid()}/fd/{self.namespace}"]
        subprocess.run(move, check=True)
        subprocess.run(["ip", "link", "set", "dev", tap, "master", host.links.bridge(nic.vni), "up"], check=True)
        with inside(self.namespace):
            # The link-local address of the kernel is tentative for a moment, even without DAD.
            Path("/proc/sys/net/ipv6/conf/eth0/addr_gen_mode").write_text("1")
            Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").write_text("0")
            subprocess.run(["ip", "link", "set", "dev", "eth0", "address", nic.mac, "up"], check=True)
            own = slaac_address(LINK_LOCAL, nic.mac)
            subprocess.run(["ip", "address", "add", f"{own}/64", "dev", "eth0", "nodad"], check=True)
            wait_for_source(own, METADATA_ADDRESS, "eth0")

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        with inside(self.namespace):
            connection = http.client.HTTPConnection(f"{METADATA_ADDRESS}%eth0", 80, timeout=10)
            connection.request(method, path, body, headers={"Host": "[fe80::a9fe:a9fe]"} | headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def read(self, path: str) -> str:
        status, content = self.ask(path)
        assert status == 200, (path, status, content)
        return content.decode()

    def connect(self) -> socket.socket:
        with inside(self.namespace):
            return socket.create_connection((f"{METADATA_ADDRESS}%eth0", 80), timeout=10)

    def close(self) -> None:
        os.close(self.namespace)


@pytest.fixture
def host(make_host: HostMaker, blank_image: Path) -> Iterator[QemuHypervisor]:
    """A host with a metadata service. Segments are claimed without starting machines."""
    made = make_host(OneImage(blank_image))
    service = MetadataService(made.segments, made.paths, made.spec, timeout_seconds=3)
    service.start()
    yield made
    for report in made.reports():
        made.segments.release(report.id)
        made.remove(report.id)
    service.close()


def here(host: QemuHypervisor, spec: MachineSpec) -> MachineSpec:
    """Register a machine on the host without qemu, for a simulated Guest."""
    paths = host.paths.machine(spec.id)
    paths.directory.mkdir(parents=True)
    paths.spec.write_text(spec.model_dump_json())
    host.segments.claim(spec.id, spec.nics)
    return spec


def test_a_guest_reads_both_trees(host: QemuHypervisor) -> None:
    spec = here(
        host, make_spec(1, None, key=KEY, user_data=SCRIPT, metadata={"role": "web"}, admin_pass="only-on-the-drive")
    )
    guest = Guest(host, spec)
    assert "openstack" in guest.read("/").split()
    assert "latest" in guest.read("/openstack").split()
    assert guest.read("/openstack/latest/").split() == [
        "meta_data.json",
        "network_data.json",
        "password",
        "user_data",
        "vendor_data.json",
        "vendor_data2.json",
    ]
    told = json.loads(guest.read("/openstack/latest/meta_data.json"))
    assert told["uuid"] == spec.id
    assert told["meta"] == {"role": "web"}
    assert told["public_keys"] == {"laptop": KEY.data}
    assert "admin_pass" not in told
    links = json.loads(guest.read("/openstack/2018-08-27/network_data.json"))["links"]
    assert [link["ethernet_mac_address"] for link in links] == [spec.nics[0].mac]
    assert guest.read("/openstack/latest/vendor_data.json") == "{}"
    assert guest.read("/openstack/latest/vendor_data2.json") == "{}"
    assert guest.read("/openstack/latest/user_data") == "#!/bin/sh\ntrue\n"

    assert guest.read("/latest/").split() == ["meta-data/", "user-data"]
    assert guest.read("/latest/user-data") == "#!/bin/sh\ntrue\n"
    assert {"hostname", "instance-id", "placement/", "public-keys/"} <= set(guest.read("/latest/meta-data/").split())
    assert guest.read("/2009-04-04/meta-data/hostname") == "vm1"
    assert guest.read("/latest/meta-data/placement/availability-zone") == "nova"
    assert guest.read("/latest/meta-data/public-keys/") == "0=laptop"
    assert guest.read("/latest/meta-data/public-keys/0/openssh-key") == KEY.data
    for path in ("/latest/meta-data/secret", "/openstack/1999-01-01/", "/openstack/latest/../../etc/passwd", "/x"):
        assert guest.ask(path)[0] == 404, path
    assert guest.ask("/openstack/latest/meta_data.json", "HEAD") == (200, b"")
    guest.close()


def test_user_data_is_404_without_user_data(host: QemuHypervisor) -> None:
    guest = Guest(host, here(host, make_spec(1, None)))
    assert guest.ask("/openstack/latest/user_data")[0] == 404
    assert guest.ask("/latest/user-data")[0] == 404
    assert "user_data" not in guest.read("/openstack/latest").split()
    assert "public_keys" not in json.loads(guest.read("/openstack/latest/meta_data.json"))
    guest.close()


def test_a_guest_cannot_request_metadata_of_another(host: QemuHypervisor) -> None:
    one, two = here(host, make_spec(1, None)), here(host, make_spec(2, None))
    elsewhere = here(host, make_spec(1, None, vni=0x777, hostname="elsewhere"))
    both = make_spec(3, None)
    both = here(host, both.model_copy(update={"nics": (*both.nics, *make_spec(4, None, vni=0x777).nics)}))
    guests = [(Guest(host, spec), spec) for spec in (one, two, elsewhere, both)]
    guests.append((Guest(host, both, 1), both))
    lies = {"X-Forwarded-For": str(two.nics[0].addresses[0].ip), "X-Instance-ID": two.id, "X-Tenant-ID": "other"}
    for guest, spec in guests:
        status, content = guest.ask("/openstack/latest/meta_data.json", **lies)
        assert status == 200
        assert json.loads(content)["uuid"] == spec.id
        guest.close()


def test_an_unknown_client_gets_no_metadata(host: QemuHypervisor) -> None:
    here(host, make_spec(1, None))
    stranger = Guest(host, make_spec(9, None))
    assert stranger.ask("/openstack/latest/meta_data.json")[0] == 404
    assert stranger.ask("/openstack/latest/password", "POST", b"x")[0] == 404
    stranger.close()


def test_a_password_is_posted_once(host: QemuHypervisor) -> None:
    spec = here(host, make_spec(1, None))
    guest, path = Guest(host, spec), "/openstack/latest/password"
    assert guest.read(path) == ""
    assert guest.ask(path, "POST", bytes(1021))[0] == 400
    assert guest.ask(path, "POST", b"encrypted")[0] == 200
    assert guest.ask(path, "POST", b"another")[0] == 409
    assert guest.read(path) == "encrypted"
    assert metadata.load_password(host.paths.machine(spec.id)) == b"encrypted"
    assert guest.ask("/openstack/latest/user_data", "POST", b"x")[0] == 405
    # Until the user clears it.
    assert host.password(spec.id) == b"encrypted"
    for _ in range(2):
        host.forget_password(spec.id)
    assert host.password(spec.id) == b""
    assert guest.ask(path, "POST", b"another")[0] == 200
    guest.close()


def test_idle_connections_of_a_guest_do_not_block_others(host: QemuHypervisor) -> None:
    slow, other = Guest(host, here(host, make_spec(1, None))), Guest(host, here(host, make_spec(2, None)))
    held = [slow.connect() for _ in range(40)]
    assert other.read("/openstack/latest/vendor_data.json") == "{}"
    for connection in held:
        connection.close()
    slow.close()
    other.close()


def test_a_slow_client_is_disconnected(host: QemuHypervisor) -> None:
    guest = Guest(host, here(host, make_spec(1, None)))
    connection = guest.connect()
    connection.settimeout(0.5)
    connection.sendall(b"GET / HTTP/1.0\r\n")
    deadline, response = time.monotonic() + 10, None
    while response is None:
        assert time.monotonic() < deadline
        try:
            response = connection.recv(100)
        except TimeoutError:
            connection.sendall(b"X-Slow: yes\r\n")
        except ConnectionError:
            response = b""
    connection.close()
    guest.close()


def test_a_real_guest_reaches_metadata_after_its_bridge_is_recreated(
    make_host: HostMaker, tiny_image: Path, ssh_key: tuple[Path, KeySpec]
) -> None:
    private, public = ssh_key
    spec = make_spec(1, image_ref(tiny_image, "qcow2", 44_040_192), key=public)
    host = make_host(OneImage(tiny_image))
    service = MetadataService(host.segments, host.paths, host.spec)
    service.start()
    host.ensure_running(spec)
    ask = rf"printf 'GET /openstack/latest/meta_data.json HTTP/1.0\r\n\r\n' | nc {METADATA_ADDRESS}%eth0 80"
    assert spec.id in ssh(spec, private, ask)
    route = ssh(spec, private, "ip -6 route show default")
    assert f"via {METADATA_ADDRESS}" in route, "the router has the same address on every host"
    own = slaac_address(LINK_LOCAL, host.links.bridge_mac(spec.nics[0].vni))
    assert own != IPv6Address(METADATA_ADDRESS)
    subprocess.run(["ip", "link", "del", "dev", host.links.bridge(spec.nics[0].vni)], check=True)
    host.repair()
    assert spec.id in ssh(spec, private, ask)
    host.remove(spec.id)
    service.close()
