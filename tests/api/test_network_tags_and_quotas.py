# ruff: noqa: F401, F811 (fixtures)
"""Tags of all resources, and quotas."""

from tests.api.network_fixtures import (
    Actor,
    Cloud,
    cloud,
    member,
    operator,
    other,
    reader,
)
from tests.api.test_network_networks import make_network, make_subnet

V2 = "/network/v2.0"


def test_tags_are_added_listed_and_removed(member: Actor, other: Actor) -> None:
    path = f"{V2}/networks/{make_network(member)['id']}/tags"
    assert member.put(path, {"tags": ["red", "blue", "red"]}) == {"tags": ["blue", "red"]}
    assert member.call("PUT", f"{path}/green")[0] == 201
    assert member.call("PUT", f"{path}/green")[0] == 201
    assert member.get(path) == {"tags": ["blue", "green", "red"]}
    assert member.call("POST", path, {"tags": ["blue", "amber"]})[1] == {"tags": ["amber", "blue", "green", "red"]}
    assert member.call("GET", f"{path}/green")[0] == 204
    assert member.call_for_fault("GET", f"{path}/gray")[:2] == (404, "TagNotFound")
    member.delete(f"{path}/red")
    assert member.call_for_fault("DELETE", f"{path}/red")[0] == 404
    member.delete(path)
    assert member.get(path) == {"tags": []}
    assert other.call_for_fault("GET", path)[0] == 404
    assert member.call_for_fault("PUT", path, {"tags": [""]})[0] == 400


def test_only_the_owner_tags_a_shared_network(member: Actor) -> None:
    [public] = member.get(f"{V2}/networks")["networks"]
    assert member.call_for_fault("PUT", f"{V2}/networks/{public['id']}/tags", {"tags": []})[0] == 403


def test_all_resources_have_tags(member: Actor, operator: Actor) -> None:
    network = make_network(member, tags=["born"])
    subnet = make_subnet(member, network["id"])
    port = member.post(f"{V2}/ports", {"port": {"network_id": network["id"]}})["port"]
    [pool] = operator.get(f"{V2}/subnetpools")["subnetpools"]
    assert network["tags"] == ["born"]
    for actor, path in (
        (member, f"subnets/{subnet['id']}"),
        (member, f"ports/{port['id']}"),
        (operator, f"subnetpools/{pool['id']}"),
    ):
        actor.put(f"{V2}/{path}/tags", {"tags": ["x"]})
        assert next(iter(actor.get(f"{V2}/{path}").values()))["tags"] == ["x"]


def test_lists_are_filtered_by_tags(member: Actor) -> None:
    for name, tags in (("a", ["red", "blue"]), ("b", ["red"]), ("c", []), ("d", ['say "red"', "re"])):
        make_network(member, name=name, tags=tags)

    def names(query: str) -> list[str]:
        found = member.get(f"{V2}/networks?shared=False&sort_key=name&sort_dir=asc&{query}")["networks"]
        return [network["name"] for network in found]

    assert names("tags=red") == ["a", "b"]
    assert names("tags=red,blue") == ["a"]
    assert names("tags-any=blue,re") == ["a", "d"]
    assert names("not-tags=red,blue") == ["b", "c", "d"]
    assert names("not-tags-any=red,blue") == ["c", "d"]
    assert names("tags=Red") == []


def test_projects_read_quotas_and_operators_set_them(member: Actor, operator: Actor, other: Actor) -> None:
    path = f"{V2}/quotas/demo"
    quota = member.get(path)["quota"]
    assert (quota["network"], quota["port"], quota["floatingip"], quota["router"]) == (100, -1, 0, 0)
    assert other.call_for_fault("GET", path)[0] == 403
    assert member.call_for_fault("PUT", path, {"quota": {"network": 5}})[0] == 403
    assert operator.put(path, {"quota": {"network": 1, "floatingip": 0}})["quota"]["network"] == 1
    assert operator.call_for_fault("PUT", path, {"quota": {"floatingip": 5}})[0] == 400
    assert operator.call_for_fault("PUT", path, {"quota": {"network": -2}})[0] == 400
    assert member.get(f"{path}/default")["quota"]["network"] == 100
    assert [row["project_id"] for row in operator.get(f"{V2}/quotas")["quotas"]] == ["demo"]


def test_a_quota_is_enforced(member: Actor, operator: Actor) -> None:
    path = f"{V2}/quotas/demo"
    operator.put(path, {"quota": {"network": 1, "subnet": 0, "port": 2}})
    network = make_network(member)
    status, kind, message = member.call_for_fault("POST", f"{V2}/networks", {"network": {}})
    assert (status, kind) == (409, "OverQuota")
    assert "Quota exceeded" in message
    assert member.call_for_fault("POST", f"{V2}/subnets", {"subnet": {"network_id": network["id"]}})[1] == "OverQuota"
    body = {"ports": [{"network_id": network["id"]}] * 3}
    assert member.call_for_fault("POST", f"{V2}/ports", body)[1] == "OverQuota"
    assert member.get(f"{path}/details.json")["quota"]["network"] == {"limit": 1, "used": 1, "reserved": 0}
    assert member.get(f"{V2}/ports")["ports"] == []
    operator.delete(path)
    assert make_subnet(member, network["id"])["cidr"]
