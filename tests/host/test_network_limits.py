# ruff: noqa: F401, F811 (fixtures)
"""Isolation of user networks: prefixes and router advertisements do not affect the host or other networks."""

import socket
import subprocess
from ipaddress import IPv6Address, IPv6Interface
from pathlib import Path

import pytest

from hypervisor.api.errors import LaunchFailed
from hypervisor.api.spec import MachineSpec
from hypervisor.base.addresses import slaac_address
from tests.host.support import (
    HostMaker,
    OneImage,
    blank_image,
    image_ref,
    make_host,
    make_spec,
    namespace,
    wait_for_source,
)


def spec_on(prefix: str, image: Path, *, by_user: bool = True) -> MachineSpec:
    spec = make_spec(1, image_ref(image, "raw", 1 << 20))
    within = IPv6Interface(prefix)
    nic = spec.nics[0].model_copy(
        update={
            "addresses": (IPv6Interface((slaac_address(within, spec.nics[0].mac), 64)),),
            "gateway": within.network[1],
            "prefix_by_user": by_user,
        }
    )
    return spec.model_copy(update={"nics": (nic,)})


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def underlay(namespace: None) -> str:
    """A link of the host's own network with an address and a route."""
    run("ip", "link", "add", "up6", "type", "bridge")
    run("ip", "link", "set", "up6", "up")
    run("ip", "-6", "addr", "add", "fd00:a:a:a::1/64", "dev", "up6", "nodad")
    run("ip", "-6", "route", "add", "fd00:b::/32", "via", "fd00:a:a:a::2", "dev", "up6")
    run("ip", "-6", "route", "add", "unreachable", "fc00::/7", "dev", "lo")
    return "up6"


@pytest.mark.parametrize("prefix", ["fd00:a:a:a::/64", "fd00:b:1:2::/64"])
def test_a_prefix_of_the_host_is_rejected(underlay: str, make_host: HostMaker, blank_image: Path, prefix: str) -> None:
    host = make_host(OneImage(blank_image))
    spec = spec_on(prefix, blank_image)
    with pytest.raises(LaunchFailed, match="in use by this cloud's hosts"):
        host.ensure_running(spec)
    host.remove(spec.id)


def test_other_prefixes_are_accepted(underlay: str, make_host: HostMaker, blank_image: Path) -> None:
    host = make_host(OneImage(blank_image))
    spec = spec_on("fd00:c:1:2::/64", blank_image)
    host.ensure_running(spec)
    host.ensure_nics(spec)
    host.remove(spec.id)


def test_a_prefix_of_an_open_connection_is_rejected(underlay: str, make_host: HostMaker, blank_image: Path) -> None:
    run("ip", "-6", "addr", "add", "fd00:d:d:d::1/128", "dev", "lo", "nodad")
    wait_for_source(IPv6Address("fd00:d:d:d::1"), IPv6Address("fd00:d:d:d::1"))
    host = make_host(OneImage(blank_image))
    spec = spec_on("fd00:d:d:d::/64", blank_image)
    with (
        socket.create_server(("fd00:d:d:d::1", 0), family=socket.AF_INET6) as server,
        socket.create_connection(server.getsockname()[:2]),
    ):
        run("ip", "-6", "addr", "del", "fd00:d:d:d::1/128", "dev", "lo")
        with pytest.raises(LaunchFailed, match="in use by this cloud's hosts"):
            host.ensure_running(spec)
    host.remove(spec.id)


def test_one_invalid_network_does_not_stop_other_routers(make_host: HostMaker, blank_image: Path) -> None:
    """The invalid network bypasses validation, as requests and specs reject it."""
    image = image_ref(blank_image, "raw", 1 << 20)
    good, bad = make_spec(1, image), make_spec(2, image, vni=0x667)
    nic = bad.nics[0].model_copy(update={"dns_search": ("no } name",)})
    bad = bad.model_copy(update={"nics": (nic,)})
    host = make_host(OneImage(blank_image))
    host.ensure_running(good)
    radvd, announced = host.router.find_process(), host.router.configuration.read_text()
    with pytest.raises(LaunchFailed, match="network could not be set up"):
        host.ensure_running(bad)
    host.repair()
    assert host.router.configuration.read_text() == announced
    assert host.router.find_process() == radvd
    other = make_spec(3, image, vni=0x668)
    host.ensure_running(other)
    assert host.router.find_process() == radvd
    assert host.router.configuration.read_text().count("interface ") == 2
    for report in host.reports():
        host.remove(report.id)
