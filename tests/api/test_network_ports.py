# ruff: noqa: F401, F811 (fixtures)
"""Ports through the API: create, change, bind, release."""

from typing import Any

import pytest

from network_api.resources import ports
from tests.api.network_fixtures import (
    CALLERS,
    NOW,
    Actor,
    Cloud,
    cloud,
    member,
    operator,
    other,
)
from tests.api.test_network_networks import make_network, make_subnet

V2 = "/network/v2.0"
MAC = "02:00:f0:a9:c4:4e"


@pytest.fixture
def network(member: Actor) -> dict[str, Any]:
    """A network of the member's project with subnet 2a0a:e5c1:111:1::/64."""
    made = make_network(member)
    make_subnet(member, made["id"])
    return made


def make_port(actor: Actor, network: dict[str, Any], **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = actor.post(f"{V2}/ports", {"port": {"network_id": network["id"], **fields}})["port"]
    return made


def test_a_port_gets_the_eui64_address_of_its_mac(member: Actor, network: dict[str, Any]) -> None:
    port = make_port(member, network, mac_address=MAC, name="p")
    assert port["fixed_ips"][0]["ip_address"] == "2a0a:e5c1:111:1:0:f0ff:fea9:c44e"
    assert (port["status"], port["device_id"], port["security_groups"]) == ("DOWN", "", [])
    assert member.get(f"{V2}/ports?name=p")["ports"] == [port]


def test_addresses_are_chosen_on_own_networks_only(member: Actor, operator: Actor, network: dict[str, Any]) -> None:
    fixed = {"fixed_ips": [{"ip_address": "2a0a:e5c1:111:1::5", "subnet_id": None}]}
    assert make_port(member, network, **fixed)["fixed_ips"][0]["ip_address"] == "2a0a:e5c1:111:1::5"
    [public] = member.get(f"{V2}/networks?name=public")["networks"]
    chosen = {"network_id": public["id"], "fixed_ips": [{"ip_address": "2a0a:e5c1:111::5"}]}
    assert member.call_for_fault("POST", f"{V2}/ports", {"port": chosen})[0] == 403
    assert (
        member.call_for_fault("POST", f"{V2}/ports", {"port": {"network_id": public["id"], "mac_address": MAC}})[0]
        == 403
    )
    assert operator.post(f"{V2}/ports", {"port": chosen})["port"]["fixed_ips"][0]["ip_address"] == "2a0a:e5c1:111::5"
    assert make_port(member, public)["fixed_ips"]


def test_addresses_and_macs_are_unique(member: Actor, network: dict[str, Any]) -> None:
    port = make_port(member, network, mac_address=MAC)
    again = {"network_id": network["id"], "mac_address": MAC}
    assert member.call_for_fault("POST", f"{V2}/ports", {"port": again})[:2] == (409, "MacAddressInUse")
    again = {"network_id": network["id"], "fixed_ips": [{"ip_address": port["fixed_ips"][0]["ip_address"]}]}
    assert member.call_for_fault("POST", f"{V2}/ports", {"port": again})[:2] == (409, "IpAddressAlreadyAllocated")
    second = make_port(member, network)
    path = f"{V2}/ports/{second['id']}"
    assert member.call_for_fault("PUT", path, {"port": {"mac_address": MAC}})[:2] == (409, "MacAddressInUse")
    same = {"port": {"fixed_ips": [{"ip_address": port["fixed_ips"][0]["ip_address"]}]}}
    assert member.call_for_fault("PUT", path, same)[:2] == (409, "IpAddressAlreadyAllocated")


def test_a_new_mac_changes_the_address(member: Actor, network: dict[str, Any]) -> None:
    port = make_port(member, network)
    changed = member.put(f"{V2}/ports/{port['id']}", {"port": {"mac_address": MAC, "name": "new"}})["port"]
    assert changed["fixed_ips"][0]["ip_address"] == "2a0a:e5c1:111:1:0:f0ff:fea9:c44e"
    assert (changed["name"], changed["mac_address"]) == ("new", MAC)


def test_an_address_is_removed_and_added(member: Actor, network: dict[str, Any]) -> None:
    port = make_port(member, network, fixed_ips=[])
    assert port["fixed_ips"] == []
    path = f"{V2}/ports/{port['id']}"
    subnet = member.get(f"{V2}/networks/{network['id']}")["network"]["subnets"][0]
    [fixed_ip] = member.put(path, {"port": {"fixed_ips": [{"subnet_id": subnet}]}})["port"]["fixed_ips"]
    assert fixed_ip["ip_address"].startswith("2a0a:e5c1:111:1:")
    assert member.put(path, {"port": {"fixed_ips": [fixed_ip]}})["port"]["fixed_ips"] == [fixed_ip]
    assert member.put(path, {"port": {"fixed_ips": []}})["port"]["fixed_ips"] == []
    assert member.get(f"{V2}/ports?fixed_ips=subnet_id={subnet}")["ports"] == []


def test_a_bound_port_cannot_change_mac_or_be_deleted(cloud: Cloud, member: Actor, network: dict[str, Any]) -> None:
    port = make_port(member, network)
    with cloud.database.transaction() as session:
        ports.bind(session, NOW, port["id"], CALLERS["member"], device_id="server-1", host="host-1")
    path = f"{V2}/ports/{port['id']}"
    assert member.call_for_fault("DELETE", path)[:2] == (409, "PortInUse")
    for change in ({"mac_address": MAC}, {"fixed_ips": []}, {"admin_state_up": False}):
        assert member.call_for_fault("PUT", path, {"port": change})[:2] == (409, "PortBound"), change
    assert member.call_for_fault("PUT", path, {"port": {"device_owner": "mine"}})[0] == 400
    assert member.put(path, {"port": {"name": "renamed"}})["port"]["device_id"] == "server-1"
    with cloud.database.transaction() as session:
        ports.release(session, NOW, "server-1")
    member.delete(path)
    assert member.call_for_fault("GET", path)[0] == 404


def test_a_port_that_is_down_cannot_be_bound(cloud: Cloud, member: Actor, network: dict[str, Any]) -> None:
    port = make_port(member, network, admin_state_up=False)
    with cloud.database.transaction() as session, pytest.raises(Exception, match="administratively down"):
        ports.bind(session, NOW, port["id"], CALLERS["member"], device_id="server-1", host=None)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("device_id", "server-of-somebody", "creating a server with it"),
        ("device_owner", "compute:nova", "creating a server with it"),
        ("device_owner", "network:router_interface", "creating a server with it"),
        ("binding:vnic_type", "direct", "virtio"),
        ("security_groups", ["default"], "no security groups"),
        ("port_security_enabled", False, "from their own MAC"),
        ("allowed_address_pairs", [{"ip_address": "::/0"}], "not in the network's prefix"),
        ("allowed_address_pairs", [{"ip_address": "10.0.0.1"}], "IPv6 only"),
        ("allowed_address_pairs", [{"ip_address": "2a0a:e5c1:111:1::5"}] * 2, "duplicate address pair"),
        ("allowed_address_pairs", [{"ip_address": f"2a0a:e5c1:111:1::{n}"} for n in range(11)], "at most 10"),
        ("ipv4_address", "2001:db8::1", "must be an IPv4 address"),
        ("mac_address", "01:00:5e:00:00:01", "multicast"),
        ("fixed_ips", [{"ip_address": "10.0.0.1"}], "IPv6 only"),
        ("fixed_ips", [{"ip_address": "2001:db8::1"}], "not a valid IP"),
        ("fixed_ips", [{}, {}], "at most 1"),
    ],
)
def test_unsupported_port_attributes_are_refused(
    member: Actor, network: dict[str, Any], field: str, value: Any, reason: str
) -> None:
    status, _, message = member.call_for_fault(
        "POST", f"{V2}/ports", {"port": {"network_id": network["id"], field: value}}
    )
    assert status == 400
    assert reason in message


def test_a_subnet_of_another_network_is_not_found(member: Actor, network: dict[str, Any]) -> None:
    body = {"port": {"network_id": network["id"], "fixed_ips": [{"subnet_id": "elsewhere"}]}}
    assert member.call_for_fault("POST", f"{V2}/ports", body)[:2] == (404, "SubnetNotFound")


def test_ports_are_created_in_bulk(member: Actor, network: dict[str, Any]) -> None:
    body = {"ports": [{"network_id": network["id"], "name": f"p{number}"} for number in range(3)]}
    made = member.post(f"{V2}/ports", body)["ports"]
    assert [port["name"] for port in made] == ["p0", "p1", "p2"]
    assert len({port["fixed_ips"][0]["ip_address"] for port in made}) == 3
