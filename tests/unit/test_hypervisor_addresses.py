"""Addresses on a host: validation in specs, radvd configuration, and isolation of invalid networks."""

import json
import subprocess
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hypervisor.api.addresses import format_address, format_prefix
from hypervisor.api.spec import MachineSpec, NicSpec
from hypervisor.base.config import RouterTiming
from hypervisor.base.paths import HostPaths
from hypervisor.guest_data.config_drive import network_data
from hypervisor.network import radvd
from hypervisor.network.antispoofing import tap_rules

NIC: dict[str, Any] = {
    "port_id": "9fd63e5a-6b8f-4b5c-a3d1-000000000001",
    "network_id": "n",
    "vni": 5,
    "mac": "02:00:f0:a9:c4:4e",
    "mtu": 1430,
    "addresses": ["2001:db8::5/64"],
    "gateway": "2001:db8::1",
    "dns_servers": ["2001:db8::53"],
    "allowed": [["02:00:f0:a9:c4:4e", "2001:db8::/96"]],
}
SPEC: dict[str, Any] = {
    "id": "one",
    "name": "one",
    "hostname": "one",
    "project_id": "p",
    "vcpus": 1,
    "memory_mib": 64,
    "disks": [],
}


@pytest.mark.parametrize(
    "change",
    [
        {"addresses": ["2001:db8::5%x/64"]},
        {"addresses": ["ff02::1/64"]},
        {"gateway": "2001:db8::1%x"},
        {"gateway": "::1"},
        {"dns_servers": ["fe80::1%eth0"]},
        {"dns_servers": ["fe80::1"]},
        {"dns_servers": ["ff05::2"]},
        {"dns_servers": ["::"]},
        {"dns_search": ["a { };"]},
        {"allowed": [["02:00:f0:a9:c4:4e", "2001:db8::%x/64"]]},
        {"allowed": [["02:00:f0:a9:c4:4e } accept", "2001:db8::/64"]]},
        {"mac": "02:00:f0:a9:c4:4e\n"},
        {"port_id": '"x'},
    ],
)
def test_a_host_refuses_a_spec_that_could_change_its_rules(change: dict[str, Any]) -> None:
    assert MachineSpec.model_validate(SPEC | {"nics": [NIC]}).nics
    with pytest.raises(ValidationError):
        MachineSpec.model_validate(SPEC | {"nics": [NIC | change]})


def test_a_stored_spec_of_an_earlier_release_is_repaired() -> None:
    stored = NIC | {
        "addresses": ["2001:db8::5%a b/64"],
        "gateway": "2001:db8::1%9",
        "dns_servers": ["fe80::1%eth0", "2001:db8::53%x"],
        "allowed": [["02:00:f0:a9:c4:4e", "2001:db8::%x/96"]],
    }
    written = MachineSpec.model_validate(SPEC | {"nics": [NIC]}).model_dump(mode="json") | {"nics": [stored]}
    spec = MachineSpec.from_file(json.dumps(written).encode())
    assert spec == MachineSpec.model_validate(SPEC | {"nics": [NIC]})
    with pytest.raises(ValidationError):
        MachineSpec.from_file(b'{"id": "x"}')


def test_configurations_are_written_from_numbers() -> None:
    scoped = IPv6Address("2001:db8::1%x {")
    assert format_address(scoped) == "2001:db8::1"
    assert format_prefix(IPv6Network((scoped, 128))) == "2001:db8::1/128"
    nic = NicSpec.model_construct(**NIC).model_copy(
        update={
            "addresses": (IPv6Interface("2001:db8::5/64"),),
            "gateway": scoped,
            "allowed": ((NIC["mac"], IPv6Network("2001:db8::1%x/128")),),
            "outbound": None,
        }
    )
    assert "%" not in "".join(tap_rules("table", "tap", nic, isolate=True))
    advertised = advertisement("6babcd-000001", dns_servers=(scoped,), prefixes=(IPv6Network("2001:db8::%x/64"),))
    assert "%" not in radvd.radvd_conf((advertised,), RouterTiming())


def advertisement(interface: str, **more: Any) -> radvd.Advertisement:
    chosen: dict[str, Any] = {
        "prefixes": (IPv6Network("2001:db8::/64"),),
        "mtu": 1430,
        "source": IPv6Address("fe80::1"),
    }
    return radvd.Advertisement(interface=interface, **chosen | more)


def broken(interface: str) -> radvd.Advertisement:
    return advertisement(interface, dns_search=("no } name",))


class Recorder(radvd.RouterAdvertiser):
    """A router advertiser that writes and checks configurations without starting radvd."""

    def _start(self) -> None:
        pass


@pytest.fixture
def advertiser(tmp_path: Path) -> Recorder:
    try:
        subprocess.run(["radvd", "--version"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no radvd")
    return Recorder(HostPaths(tmp_path, None, "here"), RouterTiming())


def test_invalid_network_does_not_affect_others(advertiser: Recorder) -> None:
    good, other = advertisement("6babcd-000001"), advertisement("6babcd-000003")
    assert advertiser.apply((good, broken("6babcd-000002"), other)) == {"6babcd-000002"}
    assert advertiser.configuration.read_text() == radvd.radvd_conf((good, other), advertiser.timing)


def test_network_with_an_invalid_change_keeps_its_advertisement(advertiser: Recorder) -> None:
    before = (advertisement("6babcd-000001"), advertisement("6babcd-000002", mtu=1400))
    assert advertiser.apply(before) == frozenset()
    last = advertiser.configuration.read_text()
    for _ in range(2):
        assert advertiser.apply((before[0], broken("6babcd-000002"))) == {"6babcd-000002"}
        assert advertiser.configuration.read_text() == last
    assert advertiser.apply((before[0], advertisement("6babcd-000002", mtu=1300))) == frozenset()
    assert "AdvLinkMTU 1300" in advertiser.configuration.read_text()


def test_a_route_by_the_gateway_is_advertised() -> None:
    route = IPv6Network("2001:db8:7::/48")
    text = radvd.radvd_conf((advertisement("6babcd-000001", routes=(route,)),), RouterTiming(default_lifetime=600))
    assert "route 2001:db8:7::/48 {\n    AdvRouteLifetime 600;" in text


def test_guests_find_host_routes_in_network_data() -> None:
    nic = NicSpec.model_validate(NIC | {"routes": [["2001:db8:7::/48", "2001:db8::9"]]})
    [network] = network_data((nic,))["networks"]
    assert network["routes"] == [{"network": "2001:db8:7::", "netmask": "ffff:ffff:ffff::", "gateway": "2001:db8::9"}]


def test_radvd_accepts_routes(advertiser: Recorder) -> None:
    routed = advertisement("6babcd-000001", routes=(IPv6Network("2001:db8:7::/48"), IPv6Network("fd00::/8")))
    assert advertiser.apply((routed,)) == frozenset()
