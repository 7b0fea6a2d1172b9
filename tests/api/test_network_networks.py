# ruff: noqa: F401, F811 (fixtures)
"""Networks and subnets through the API."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from network_api.resources import networks, ports
from tests.api.network_fixtures import (
    CALLERS,
    NOW,
    Actor,
    Cloud,
    cloud,
    member,
    operator,
    other,
    reader,
)

V2 = "/network/v2.0"


def make_network(actor: Actor, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = actor.post(f"{V2}/networks", {"network": {"name": "own", **fields}})["network"]
    return made


def make_subnet(actor: Actor, network_id: str, **fields: Any) -> dict[str, Any]:
    body = {"subnet": {"network_id": network_id, "ip_version": 6, **fields}}
    made: dict[str, Any] = actor.post(f"{V2}/subnets", body)["subnet"]
    return made


def bind_server_port(cloud: Cloud, network_id: str, server: str = "server-1") -> str:
    with cloud.database.transaction() as session:
        network = networks.find(session, CALLERS["member"], network_id)
        return ports.create(session, NOW, ports.NewPort(project_id="demo", network=network, device_id=server)).id


def test_a_subnet_gets_a_64_of_the_default_pool(member: Actor) -> None:
    network = make_network(member)
    assert (network["status"], network["shared"], network["router:external"]) == ("ACTIVE", False, False)
    subnet = make_subnet(member, network["id"], ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
    assert subnet["cidr"] == "2a0a:e5c1:111:1::/64"
    assert subnet["gateway_ip"] == "2a0a:e5c1:111:1::1"
    assert subnet["subnetpool_id"] == member.get(f"{V2}/subnetpools?is_default=True")["subnetpools"][0]["id"]
    assert member.get(f"{V2}/networks/{network['id']}")["network"]["subnets"] == [subnet["id"]]


def test_networks_of_other_projects_are_not_found(member: Actor, other: Actor) -> None:
    network = make_network(member)
    subnet = make_subnet(member, network["id"])
    for path in (f"networks/{network['id']}", f"subnets/{subnet['id']}"):
        assert other.call_for_fault("GET", f"{V2}/{path}")[0] == 404
        assert other.call_for_fault("PUT", f"{V2}/{path}", {path.split("s/")[0]: {"name": "mine"}})[0] == 404
        assert other.call_for_fault("DELETE", f"{V2}/{path}")[0] == 404
    assert len(other.get(f"{V2}/networks")["networks"]) == 1


def test_a_reader_cannot_create_networks(reader: Actor) -> None:
    assert reader.call_for_fault("POST", f"{V2}/networks", {"network": {}})[0] == 403


def test_members_see_the_public_network_but_cannot_change_it(member: Actor, operator: Actor) -> None:
    [public] = member.get(f"{V2}/networks?name=public")["networks"]
    path = f"{V2}/networks/{public['id']}"
    assert member.call_for_fault("PUT", path, {"network": {"name": "mine"}})[0] == 403
    assert member.call_for_fault("DELETE", path)[0] == 403
    assert member.call_for_fault("POST", f"{V2}/subnets", {"subnet": {"network_id": public["id"]}})[0] == 403
    assert operator.call_for_fault("DELETE", path)[0] == 409
    assert operator.call_for_fault("PUT", path, {"network": {"shared": False}})[0] == 409
    assert operator.call_for_fault("DELETE", f"{V2}/subnets/{public['subnets'][0]}")[0] == 409


def test_networks_have_segments_of_their_own(member: Actor, operator: Actor) -> None:
    ids = [make_network(member)["id"] for _ in range(3)]
    segments = {operator.get(f"{V2}/networks/{key}")["network"]["provider:segmentation_id"] for key in ids}
    assert segments == {5001, 5002, 5003}


def test_changes_update_the_timestamp(cloud: Cloud, member: Actor) -> None:
    network = make_network(member)
    subnet = make_subnet(member, network["id"])
    cloud.clock.advance(60)
    changed = member.put(f"{V2}/networks/{network['id']}", {"network": {"name": "new", "description": "d"}})["network"]
    assert (changed["name"], changed["description"], changed["updated_at"]) == ("new", "d", "2026-01-01T00:01:00Z")
    changed = member.put(f"{V2}/subnets/{subnet['id']}", {"subnet": {"dns_nameservers": ["2001:DB8:0::53"]}})["subnet"]
    assert changed["dns_nameservers"] == ["2001:db8::53"]
    assert changed["created_at"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("router:external", True, "no floating IPs are needed"),
        ("provider:network_type", "vlan", "allocated by the cloud"),
        ("port_security_enabled", False, "from their own MAC"),
        ("mtu", 9000, "uplink"),
        ("availability_zone_hints", ["nova"], "every host"),
        ("colour", "red", "unexpected"),
    ],
)
def test_unsupported_network_attributes_are_refused(operator: Actor, field: str, value: Any, reason: str) -> None:
    status, _, message = operator.call_for_fault("POST", f"{V2}/networks", {"network": {field: value}})
    assert status == 400
    assert reason in message


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ip_version": 4}, "no IPv4 subnet is needed"),
        ({"cidr": "10.0.0.0/24"}, "no IPv4 subnet is needed"),
        ({"ipv6_ra_mode": "dhcpv6-stateful"}, "SLAAC"),
        ({"enable_dhcp": False}, "SLAAC"),
        ({"gateway_ip": "2001:db8::1"}, "not a valid address on subnet"),
        ({"allocation_pools": [{"start": "2001:db8::2", "end": "2001:db8::9"}]}, "not allocated from a range"),
        ({"host_routes": [{"destination": "::/0", "nexthop": "fe80::1"}]}, "not an address on subnet"),
        ({"prefixlen": 80}, "/64"),
        ({"cidr": "2a0a:e5c1:111:7::/80"}, "/64"),
        ({"cidr": "2a0a:e5c1:111::/64"}, "overlaps"),
        ({"dns_nameservers": ["9.9.9.9"]}, "IPv6 only"),
    ],
)
def test_unsupported_subnet_attributes_are_refused(member: Actor, fields: dict[str, Any], reason: str) -> None:
    network = make_network(member)
    status, _, message = member.call_for_fault(
        "POST", f"{V2}/subnets", {"subnet": {"network_id": network["id"], **fields}}
    )
    assert status == 400
    assert reason in message
    assert member.get(f"{V2}/subnets?network_id={network['id']}")["subnets"] == []


def test_members_choose_in_the_prefix_and_operators_anywhere(member: Actor, operator: Actor) -> None:
    network = make_network(member)
    status, _, message = member.call_for_fault(
        "POST", f"{V2}/subnets", {"subnet": {"network_id": network["id"], "cidr": "2001:db8:5::/64"}}
    )
    assert status == 403
    assert "2a0a:e5c1:111::/48" in message
    subnet = make_subnet(member, network["id"], cidr="2a0a:e5c1:111:abcd::/64", gateway_ip="2a0a:e5c1:111:abcd::ff")
    assert subnet["allocation_pools"] == [
        {"start": "2a0a:e5c1:111:abcd::1", "end": "2a0a:e5c1:111:abcd::fe"},
        {"start": "2a0a:e5c1:111:abcd::100", "end": "2a0a:e5c1:111:abcd:ffff:ffff:ffff:ffff"},
    ]
    elsewhere = make_subnet(operator, make_network(operator)["id"], cidr="2001:db8:5::/64")
    assert (elsewhere["cidr"], elsewhere["subnetpool_id"]) == ("2001:db8:5::/64", None)


def test_a_network_has_one_subnet(member: Actor) -> None:
    network = make_network(member)
    make_subnet(member, network["id"])
    status, _, message = member.call_for_fault("POST", f"{V2}/subnets", {"subnet": {"network_id": network["id"]}})
    assert status == 409
    assert "Create another network" in message


def test_bulk_creation_is_atomic(member: Actor) -> None:
    made = member.post(f"{V2}/networks", {"networks": [{"name": "a"}, {"name": "b"}]})["networks"]
    assert [network["name"] for network in made] == ["a", "b"]
    body = {"subnets": [{"network_id": made[0]["id"]}, {"network_id": "none"}]}
    assert member.call_for_fault("POST", f"{V2}/subnets", body)[0] == 404
    assert member.get(f"{V2}/subnets?network_id={made[0]['id']}")["subnets"] == []


def test_a_network_in_use_cannot_be_deleted_or_set_down(cloud: Cloud, member: Actor) -> None:
    network = make_network(member)
    subnet = make_subnet(member, network["id"])
    bind_server_port(cloud, network["id"])
    for method, path, body in (
        ("DELETE", f"networks/{network['id']}", None),
        ("DELETE", f"subnets/{subnet['id']}", None),
        ("PUT", f"networks/{network['id']}", {"network": {"admin_state_up": False}}),
        ("PUT", f"subnets/{subnet['id']}", {"subnet": {"gateway_ip": "2a0a:e5c1:111:1::2"}}),
    ):
        status, kind, _ = member.call_for_fault(method, f"{V2}/{path}", body)
        assert status == 409, (method, path)
        assert kind in ("NetworkInUse", "SubnetInUse")
    with cloud.database.transaction() as session:
        ports.release(session, NOW, "server-1")
    member.delete(f"{V2}/networks/{network['id']}")
    assert member.call_for_fault("GET", f"{V2}/subnets/{subnet['id']}")[0] == 404


def test_unbound_ports_follow_the_subnet_of_their_network(member: Actor) -> None:
    network = make_network(member)
    subnet = make_subnet(member, network["id"])
    port = member.post(f"{V2}/ports", {"port": {"network_id": network["id"]}})["port"]
    assert port["fixed_ips"][0]["subnet_id"] == subnet["id"]
    member.delete(f"{V2}/subnets/{subnet['id']}")
    assert member.get(f"{V2}/ports/{port['id']}")["port"]["fixed_ips"] == []
    again = make_subnet(member, network["id"])
    [fixed_ip] = member.get(f"{V2}/ports/{port['id']}")["port"]["fixed_ips"]
    assert fixed_ip["subnet_id"] == again["id"]
    assert fixed_ip["ip_address"].startswith(again["cidr"].removesuffix("::/64"))


def test_a_shared_network_in_use_cannot_be_unshared(operator: Actor, member: Actor) -> None:
    network = make_network(operator, shared=True)
    make_subnet(operator, network["id"])
    port = member.post(f"{V2}/ports", {"port": {"network_id": network["id"]}})["port"]
    path = f"{V2}/networks/{network['id']}"
    assert operator.call_for_fault("PUT", path, {"network": {"shared": False}})[1] == "InvalidSharedSetting"
    member.delete(f"{V2}/ports/{port['id']}")
    assert operator.put(path, {"network": {"shared": False}})["network"]["shared"] is False
    assert member.call_for_fault("GET", path)[0] == 404


def test_only_operators_share_or_create_for_other_projects(member: Actor, operator: Actor) -> None:
    assert member.call_for_fault("POST", f"{V2}/networks", {"network": {"shared": True}})[0] == 403
    assert member.call_for_fault("POST", f"{V2}/networks", {"network": {"project_id": "other"}})[0] == 403
    network = make_network(operator, tenant_id="demo")
    assert member.get(f"{V2}/networks/{network['id']}")["network"]["project_id"] == "demo"
    assert make_subnet(member, network["id"])["project_id"] == "demo"


def test_members_use_pools_that_operators_create(member: Actor, operator: Actor) -> None:
    body = {"subnetpool": {"name": "more", "prefixes": ["2001:db8:8::/47"], "shared": True}}
    assert member.call_for_fault("POST", f"{V2}/subnetpools", body)[0] == 403
    pool = operator.post(f"{V2}/subnetpools", body)["subnetpool"]
    subnet = make_subnet(member, make_network(member)["id"], subnetpool_id=pool["id"])
    assert subnet["cidr"] == "2001:db8:8::/64"
    assert operator.call_for_fault("DELETE", f"{V2}/subnetpools/{pool['id']}")[1] == "SubnetPoolInUse"
    wider = {"subnetpool": {"prefixes": ["2001:db8:8::/46"]}}
    assert operator.put(f"{V2}/subnetpools/{pool['id']}", wider)["subnetpool"]["prefixes"] == ["2001:db8:8::/46"]
    narrower = {"subnetpool": {"prefixes": ["2001:db8:8::/48"]}}
    assert operator.call_for_fault("PUT", f"{V2}/subnetpools/{pool['id']}", narrower)[0] == 409
    overlapping = {"subnetpool": {"name": "x", "prefixes": ["2001:db8:a::/48"]}}
    assert operator.call_for_fault("POST", f"{V2}/subnetpools", overlapping)[0] == 400
    member.delete(f"{V2}/subnets/{subnet['id']}")
    operator.delete(f"{V2}/subnetpools/{pool['id']}")


def test_the_default_pool_cannot_be_deleted(operator: Actor) -> None:
    [pool] = operator.get(f"{V2}/subnetpools")["subnetpools"]
    assert operator.call_for_fault("DELETE", f"{V2}/subnetpools/{pool['id']}")[0] == 409


def test_parallel_requests_get_unique_prefixes_within_quota(cloud: Cloud, operator: Actor, member: Actor) -> None:
    operator.put(f"{V2}/quotas/demo", {"quota": {"network": 6}})

    def make(_number: int) -> int:
        actor = Actor(cloud.client.application.test_client(), "member")
        status, made = actor.call("POST", f"{V2}/networks", {"network": {}})
        if status == 201:
            status, _ = actor.call("POST", f"{V2}/subnets", {"subnet": {"network_id": made["network"]["id"]}})
        return status

    with ThreadPoolExecutor(8) as threads:
        statuses = sorted(threads.map(make, range(16)))
    assert statuses == [201] * 6 + [409] * 10
    own = operator.get(f"{V2}/networks?shared=False")["networks"]
    assert len({network["provider:segmentation_id"] for network in own}) == 6
    assert len({subnet["cidr"] for subnet in member.get(f"{V2}/subnets")["subnets"]}) == 7
