# ruff: noqa: F401, F811 (fixtures)
"""Responses, lists and filters of networks, subnets and ports."""

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


def make_port(cloud: Cloud, project: str = "member", **given: str) -> str:
    with cloud.database.transaction() as session:
        network = networks.default_network(session, CALLERS[project])
        return ports.create(
            session, NOW, ports.NewPort(project_id=CALLERS[project].project, network=network, **given)
        ).id


def test_versions_need_no_token_and_hrefs_are_absolute(cloud: Cloud) -> None:
    answer = cloud.client.get("/network/").get_json()
    assert answer["versions"][0]["links"][0]["href"] == "http://localhost/network/v2.0/"
    collections = {resource["collection"] for resource in cloud.client.get("/network/v2.0/").get_json()["resources"]}
    assert {"networks", "subnets", "ports"} <= collections


def test_other_paths_require_a_token(cloud: Cloud) -> None:
    response = cloud.client.get(f"{V2}/networks")
    assert response.status_code == 401
    assert "NeutronError" in response.get_json()


def test_the_default_network_is_shared_and_not_external(member: Actor) -> None:
    [network] = member.get(f"{V2}/networks")["networks"]
    assert (network["name"], network["shared"], network["router:external"]) == ("public", True, False)
    assert (network["status"], network["mtu"]) == ("ACTIVE", 1430)
    assert member.get(f"{V2}/networks?router:external=True")["networks"] == []
    assert member.get(f"{V2}/networks/{network['id']}")["network"] == network


def test_only_operators_see_the_segment(member: Actor, operator: Actor) -> None:
    assert not any(key.startswith("provider:") for key in member.get(f"{V2}/networks")["networks"][0])
    assert operator.get(f"{V2}/networks")["networks"][0]["provider:segmentation_id"] == 5000


def test_the_subnet_is_slaac_without_the_gateway_in_its_pools(member: Actor) -> None:
    [subnet] = member.get(f"{V2}/subnets?ip_version=6")["subnets"]
    assert (subnet["cidr"], subnet["gateway_ip"]) == ("2a0a:e5c1:111::/64", "2a0a:e5c1:111::1")
    assert (subnet["ipv6_ra_mode"], subnet["ipv6_address_mode"]) == ("slaac", "slaac")
    assert subnet["allocation_pools"] == [{"start": "2a0a:e5c1:111::2", "end": "2a0a:e5c1:111:0:ffff:ffff:ffff:ffff"}]
    assert member.get(f"{V2}/subnets?ip_version=4")["subnets"] == []
    [network] = member.get(f"{V2}/networks")["networks"]
    assert network["subnets"] == [subnet["id"]]


def test_a_name_in_place_of_an_id_is_not_found(member: Actor) -> None:
    for collection, kind in (("networks", "Network"), ("subnets", "Subnet"), ("ports", "Port")):
        status, name, message = member.call_for_fault("GET", f"{V2}/{collection}/public")
        assert (status, name, message) == (404, f"{kind}NotFound", f"{kind} public could not be found.")


def test_ports_are_filtered_by_device_address_mac_and_state(cloud: Cloud, member: Actor) -> None:
    wanted = make_port(cloud, device_id="server-1", mac="02:00:f0:a9:c4:4e")
    make_port(cloud, device_id="server-2")
    for query in (
        "device_id=server-1",
        "device_id=server-1&device_id=none",
        "mac_address=02:00:F0:A9:C4:4E",
        "fixed_ips=ip_address=2a0a:e5c1:111:0:0:f0ff:fea9:c44e",
        "fixed_ips=ip_address_substr=fea9:c44e",
        f"id={wanted}",
        "status=BUILD&device_id=server-1",
    ):
        found = member.get(f"{V2}/ports?{query}")["ports"]
        assert [port["id"] for port in found] == [wanted], query
    assert member.get(f"{V2}/ports?status=DOWN")["ports"] == []
    [port] = member.get(f"{V2}/ports?device_id=server-1")["ports"]
    assert port["fixed_ips"][0]["ip_address"] == "2a0a:e5c1:111:0:0:f0ff:fea9:c44e".replace(":0:0:", "::")


def test_ports_of_other_projects_are_not_found(cloud: Cloud, member: Actor, other: Actor, operator: Actor) -> None:
    port = make_port(cloud)
    assert other.get(f"{V2}/ports")["ports"] == []
    assert other.call_for_fault("GET", f"{V2}/ports/{port}")[0] == 404
    assert [found["id"] for found in operator.get(f"{V2}/ports")["ports"]] == [port]
    assert [found["id"] for found in member.get(f"{V2}/ports")["ports"]] == [port]


def test_fields_selects_attributes(member: Actor) -> None:
    [network] = member.get(f"{V2}/networks?fields=id&fields=name")["networks"]
    assert set(network) == {"id", "name"}
    assert set(member.get(f"{V2}/networks/{network['id']}?fields=mtu")["network"]) == {"mtu"}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("colour=red", "invalid attribute for filtering"),
        ("shared=perhaps", "cannot be converted to boolean"),
        ("limit=many", "Limit must be an integer"),
        ("sort_key=colour&sort_dir=asc", "invalid attribute for sort_keys"),
        ("sort_key=name", "must be same"),
        ("sort_key=name&sort_dir=up", "sort_dirs"),
    ],
)
def test_invalid_list_queries_are_refused(member: Actor, query: str, reason: str) -> None:
    status, _, message = member.call_for_fault("GET", f"{V2}/networks?{query}")
    assert status == 400
    assert reason in message


def test_page_links_lead_forward_and_back(cloud: Cloud, member: Actor) -> None:
    for name in ("b", "d", "a", "e", "c", "c"):
        make_port(cloud, name=name)
    path = f"{V2}/ports?limit=2&sort_key=name&sort_dir=desc"
    pages, back = [], ""
    while path:
        body = member.get(path)
        pages.append([port["name"] for port in body["ports"]])
        links = {link["rel"]: link["href"] for link in body["ports_links"]}
        back = links.get("previous", back)
        path = links.get("next", "")
    assert pages == [["e", "d"], ["c", "c"], ["b", "a"], []]
    before = member.get(f"{V2}/ports?limit=2&sort_key=name&sort_dir=desc")
    assert len(before["ports"]) == 2
    third = member.get(f"{V2}/ports?limit=4&sort_key=name&sort_dir=desc")["ports"][3]["id"]
    fourth = member.get(f"{V2}/ports?limit=2&sort_key=name&sort_dir=desc&marker={third}")
    link = {link["rel"]: link["href"] for link in fourth["ports_links"]}["previous"]
    assert [port["name"] for port in member.get(link)["ports"]] == ["c", "c"]


def test_an_unknown_marker_is_not_found(member: Actor) -> None:
    assert member.call_for_fault("GET", f"{V2}/ports?limit=1&marker=none")[0] == 404


def test_only_implemented_extensions_are_listed(member: Actor) -> None:
    aliases = {extension["alias"] for extension in member.get(f"{V2}/extensions")["extensions"]}
    assert aliases.isdisjoint({"router", "security-group", "external-net", "port-security"})
    assert member.get(f"{V2}/extensions/standard-attr-tag")["extension"]["alias"] == "standard-attr-tag"
    assert member.call_for_fault("GET", f"{V2}/extensions/router")[0] == 404


@pytest.mark.parametrize("collection", ["floatingips", "routers", "security-groups", "security-group-rules"])
def test_unsupported_resources_are_empty_and_refused(member: Actor, collection: str) -> None:
    assert member.get(f"{V2}/{collection}?port_id=x") == {collection.replace("-", "_"): []}
    assert member.call_for_fault("GET", f"{V2}/{collection}/x")[0] == 404
    assert member.call_for_fault("DELETE", f"{V2}/{collection}/x")[0] == 404
    status, _, message = member.call_for_fault("POST", f"{V2}/{collection}", {})
    assert status == 400
    assert "not needed" in message or "There are no" in message


def test_operators_see_address_usage(cloud: Cloud, member: Actor, operator: Actor) -> None:
    make_port(cloud)
    [found] = operator.get(f"{V2}/network-ip-availabilities?network_name=public&ip_version=6")[
        "network_ip_availabilities"
    ]
    assert (found["used_ips"], found["total_ips"]) == (1, 2**64 - 2)
    one = operator.get(f"{V2}/network-ip-availabilities/{found['network_id']}")["network_ip_availability"]
    assert one == found
    assert operator.get(f"{V2}/network-ip-availabilities?ip_version=4") == {"network_ip_availabilities": []}
    assert member.call("GET", f"{V2}/network-ip-availabilities")[0] == 403


def test_readers_cannot_read_operator_lists(reader: Actor, operator: Actor) -> None:
    assert len(reader.get(f"{V2}/networks")["networks"]) == 1
    assert reader.call("GET", f"{V2}/network-ip-availabilities")[0] == 403
    assert reader.get(f"{V2}/agents") == operator.get(f"{V2}/agents") == {"agents": []}
