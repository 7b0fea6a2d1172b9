# ruff: noqa: F401, F811 (fixtures)
"""Compatibility with clients of Neutron: paths with .json, revisions, statuses."""

from dataclasses import replace
from typing import Any

import pytest

from network_api.resources import ports
from tests.api.network_fixtures import Actor, Cloud, cloud, member, operator, other
from tests.api.test_network_networks import V2, bind_server_port, make_network, make_subnet


def make_port(actor: Actor, network_id: str, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = actor.post(f"{V2}/ports", {"port": {"network_id": network_id, **fields}})["port"]
    return made


def test_paths_may_end_in_json(member: Actor) -> None:
    network = member.post(f"{V2}/networks.json", {"network": {"name": "own"}})["network"]
    path = f"{V2}/networks/{network['id']}.json"
    assert member.put(path, {"network": {"name": "new"}})["network"]["name"] == "new"
    assert member.get(f"{V2}/networks.json?name=new&fields=id")["networks"] == [{"id": network["id"]}]
    for kind in ("ports", "subnets", "floatingips", "routers", "security-groups", "extensions", "quotas/demo"):
        assert member.get(f"{V2}/{kind}.json")
    member.delete(path)
    assert member.call_for_fault("GET", path)[:2] == (404, "NetworkNotFound")


def test_a_tag_may_end_in_json(member: Actor) -> None:
    network = make_network(member)
    assert member.call("PUT", f"{V2}/networks/{network['id']}/tags/a.json")[0] == 201
    assert member.get(f"{V2}/networks/{network['id']}/tags.json")["tags"] == ["a.json"]


def test_revisions_grow_with_each_change(cloud: Cloud, member: Actor) -> None:
    network = make_network(member)
    assert network["revision_number"] >= 1
    subnet = make_subnet(member, network["id"])
    port = make_port(member, network["id"])
    for kind, thing in (("network", network), ("subnet", subnet), ("port", port)):
        path = f"{V2}/{kind}s/{thing['id']}"
        before = member.get(path)[kind]["revision_number"]
        changed = member.put(path, {kind: {"description": "new"}})[kind]["revision_number"]
        assert changed > before
        member.put(f"{path}/tags", {"tags": ["a"]})
        tagged = member.get(path)[kind]["revision_number"]
        assert tagged > changed
        assert member.get(path)[kind]["revision_number"] == tagged, "reading changes nothing"
        assert member.get(f"{V2}/{kind}s?revision_number={tagged}&id={thing['id']}")[f"{kind}s"] != []
    port_id = bind_server_port(cloud, network["id"])
    before = member.get(f"{V2}/ports/{port_id}")["port"]["revision_number"]
    with cloud.database.transaction() as session:
        ports.set_status(session, "server-1", active=True)
    active = member.get(f"{V2}/ports/{port_id}")["port"]
    assert (active["status"], active["revision_number"]) == ("ACTIVE", before + 1)


@pytest.mark.parametrize("kind", ["network", "subnet", "port"])
def test_if_match_makes_a_change_conditional(member: Actor, kind: str) -> None:
    network = make_network(member)
    made = {"network": network, "subnet": make_subnet(member, network["id"])}
    made["port"] = make_port(member, network["id"])
    path = f"{V2}/{kind}s/{made[kind]['id']}"
    current = member.get(path)[kind]["revision_number"]

    def conditional(method: str, constraint: str) -> tuple[int, Any]:
        headers = {"X-Auth-Token": member.token, "If-Match": constraint}
        body = {kind: {"name": "x"}} if method == "PUT" else None
        response = member.client.open(path, method=method, json=body, headers=headers)
        return response.status_code, response.get_json(silent=True)

    status, body = conditional("PUT", f"revision_number={current + 1}")
    assert (status, body["NeutronError"]["type"]) == (412, "RevisionNumberConstraintFailed")
    assert member.get(path)[kind]["name"] == made[kind]["name"]
    assert conditional("PUT", f"revision_number={current}")[0] == 200
    assert conditional("DELETE", f"revision_number={current}")[0] == 412
    for wrong in ("revision_number=x", "revision_number=1, revision_number=2", "revision_number=-1"):
        assert conditional("PUT", wrong)[0] == 400
    assert conditional("PUT", '"another-tag"')[0] == 200
    now = member.get(path)[kind]["revision_number"]
    if kind != "network":
        assert conditional("DELETE", f'"revision_number={now}"')[0] == 204


def test_a_subnet_response_is_accepted_as_a_request(member: Actor) -> None:
    subnet = make_subnet(member, make_network(member)["id"])
    path = f"{V2}/subnets/{subnet['id']}"
    same = {name: subnet[name] for name in ("name", "gateway_ip", "allocation_pools", "host_routes", "enable_dhcp")}
    assert member.put(path, {"subnet": same})["subnet"]["allocation_pools"] == subnet["allocation_pools"]
    other = {"allocation_pools": [{"start": subnet["gateway_ip"], "end": subnet["gateway_ip"]}]}
    status, _, message = member.call_for_fault("PUT", path, {"subnet": other})
    assert status == 400
    assert "not allocated from a range" in message
    cidr = "2a0a:e5c1:111:77::/64"
    pools = [{"start": "2a0a:e5c1:111:77::2", "end": "2a0a:e5c1:111:77:ffff:ffff:ffff:ffff"}]
    made = make_subnet(member, make_network(member)["id"], cidr=cidr, allocation_pools=pools)
    assert made["allocation_pools"] == pools


@pytest.mark.parametrize("name", ["network_type", "physical_network", "segmentation_id"])
def test_provider_attributes_are_for_operators(member: Actor, operator: Actor, name: str) -> None:
    body = {"network": {f"provider:{name}": 7 if name == "segmentation_id" else "vlan"}}
    network = make_network(member)
    for method, path in (("POST", f"{V2}/networks"), ("PUT", f"{V2}/networks/{network['id']}")):
        assert member.call_for_fault(method, path, body)[0] == 403
        status, _, message = operator.call_for_fault(method, path, body)
        assert status == 400
        assert "allocated by the cloud" in message


def test_a_taken_address_is_a_conflict(member: Actor) -> None:
    network = make_network(member)
    subnet = make_subnet(member, network["id"])
    port, free = make_port(member, network["id"]), make_port(member, network["id"])
    for address in (port["fixed_ips"][0]["ip_address"], subnet["gateway_ip"]):
        fixed_ips = [{"subnet_id": subnet["id"], "ip_address": address}]
        new = {"port": {"network_id": network["id"], "fixed_ips": fixed_ips}}
        assert member.call_for_fault("POST", f"{V2}/ports", new)[:2] == (409, "IpAddressAlreadyAllocated")
        path = f"{V2}/ports/{free['id']}"
        assert member.call_for_fault("PUT", path, {"port": {"fixed_ips": fixed_ips}})[:2] == (
            409,
            "IpAddressAlreadyAllocated",
        )


def test_a_user_chooses_a_local_prefix(member: Actor, other: Actor) -> None:
    subnet = make_subnet(member, make_network(member)["id"], cidr="fd12:3456:789a:1::/64")
    assert (subnet["cidr"], subnet["subnetpool_id"]) == ("fd12:3456:789a:1::/64", None)
    assert subnet["gateway_ip"] == "fd12:3456:789a:1::1"
    port = make_port(member, subnet["network_id"])
    assert port["fixed_ips"][0]["ip_address"].startswith("fd12:3456:789a:1:")
    taken = {"subnet": {"network_id": make_network(other)["id"], "cidr": "fd12:3456:789a:1::/64"}}
    status, kind, message = other.call_for_fault("POST", f"{V2}/subnets", taken)
    assert (status, kind) == (400, "InvalidInput")
    assert "overlaps" in message


@pytest.mark.parametrize("cidr", ["2001:db8:9::/64", "fc00:1::/64", "fe80::/64", "ff05::/64", "::/64"])
def test_members_cannot_choose_other_prefixes(member: Actor, cidr: str) -> None:
    new = {"subnet": {"network_id": make_network(member)["id"], "cidr": cidr}}
    assert member.call_for_fault("POST", f"{V2}/subnets", new)[0] in (400, 403)


def test_reserved_local_prefixes_are_refused(cloud: Cloud, member: Actor, operator: Actor) -> None:
    operator.post(f"{V2}/subnetpools", {"subnetpool": {"name": "private", "prefixes": ["fd77::/48"]}})
    parts = cloud.client.application.extensions["sixstack"]
    settings = replace(parts.settings, reserved_prefixes="fd88::/32", peers="fd99::1,fd99::2")
    cloud.client.application.extensions["sixstack"] = replace(parts, settings=settings)
    network = make_network(member)
    for cidr in ("fd77:0:0:5::/64", "fd88:0:1:2::/64", "fd99::/64"):
        new = {"subnet": {"network_id": network["id"], "cidr": cidr}}
        assert member.call_for_fault("POST", f"{V2}/subnets", new)[0] == 403, cidr
    assert make_subnet(member, network["id"], cidr="fd99:0:0:1::/64")


def test_an_operator_sets_the_host_of_an_unbound_port(cloud: Cloud, member: Actor, operator: Actor) -> None:
    network = make_network(member)
    make_subnet(member, network["id"])
    new = {"port": {"network_id": network["id"], "binding:host_id": "rack1"}}
    assert member.call_for_fault("POST", f"{V2}/ports", new)[0] == 403
    port = operator.post(f"{V2}/ports", new)["port"]
    assert (port["binding:host_id"], port["status"]) == ("rack1", "DOWN")
    path = f"{V2}/ports/{make_port(member, network['id'])['id']}"
    change = {"port": {"binding:host_id": "rack2"}}
    assert member.call_for_fault("PUT", path, change)[0] == 403
    assert operator.put(path, change)["port"]["binding:host_id"] == "rack2"
    assert operator.put(path, {"port": {"binding:host_id": ""}})["port"]["binding:vif_type"] == "unbound"
    bound = f"{V2}/ports/{bind_server_port(cloud, network['id'])}"
    assert operator.call_for_fault("PUT", bound, change)[:2] == (409, "PortBound")


def test_a_second_subnet_with_the_same_prefix_overlaps(member: Actor) -> None:
    subnet = make_subnet(member, make_network(member)["id"])
    again = {"subnet": {"network_id": subnet["network_id"], "cidr": subnet["cidr"]}}
    status, _, message = member.call_for_fault("POST", f"{V2}/subnets", again)
    assert status == 400
    assert "overlaps" in message


def test_a_subnet_has_host_routes(member: Actor) -> None:
    cidr = "fd12:0:0:7::/64"
    routes = [{"destination": "fd34::/48", "nexthop": "fd12:0:0:7::9"}]
    subnet = make_subnet(member, make_network(member)["id"], cidr=cidr, host_routes=routes)
    path = f"{V2}/subnets/{subnet['id']}"
    assert subnet["host_routes"] == routes
    more = [*routes, {"destination": "2001:db8:0:1::/64", "nexthop": subnet["gateway_ip"]}]
    assert member.put(path, {"subnet": {"host_routes": more}})["subnet"]["host_routes"] == more
    for wrong in (
        [{"destination": "fd34::/48", "nexthop": "fd12:0:0:8::9"}],
        [{"destination": "fd34::/48", "nexthop": "fe80::1"}],
        [{"destination": "fd34::/48", "nexthop": "10.0.0.1"}],
        [{"destination": "10.0.0.0/8", "nexthop": "fd12:0:0:7::9"}],
        [{"destination": "ff05::/16", "nexthop": "fd12:0:0:7::9"}],
        [{"destination": "fd34::/48"}],
        [{"destination": "::/0", "nexthop": "fd12:0:0:7::9"}],
        [{"destination": "fd12:0:0:7:1::/80", "nexthop": "fd12:0:0:7::9"}],
        routes * 2,
        [{"destination": f"fd34:{number}::/48", "nexthop": "fd12:0:0:7::9"} for number in range(21)],
    ):
        assert member.call_for_fault("PUT", path, {"subnet": {"host_routes": wrong}})[0] == 400, wrong
    assert member.get(path)["subnet"]["host_routes"] == more
    assert member.put(path, {"subnet": {"host_routes": []}})["subnet"]["host_routes"] == []
