"""Flavors: lists and filters, creation by admins, private flavors, extra specs."""

from collections.abc import Callable

import pytest

from tests.api.conftest import Api, Host

FLAVORS = "/compute/v2.1/flavors"


def make(api: Api, **fields: object) -> dict[str, object]:
    answer = api.post(FLAVORS, json={"flavor": {"name": "f", "ram": 256, "vcpus": 1, "disk": 3, **fields}})
    assert answer.status_code == 200, answer.text
    made: dict[str, object] = answer.json["flavor"]
    return made


def names(api: Api, query: str) -> list[str]:
    return [one["name"] for one in api.get(f"{FLAVORS}/detail?{query}").json["flavors"]]


def test_filters_order_and_pages(as_member: Api) -> None:
    assert names(as_member, "") == ["tiny", "small", "medium", "large"]
    assert names(as_member, "minRam=512") == ["small", "medium", "large"]
    assert names(as_member, "minDisk=20") == ["medium", "large"]
    assert names(as_member, "sort_key=name") == ["large", "medium", "small", "tiny"]
    assert names(as_member, "sort_key=memory_mb&sort_dir=desc&limit=2") == ["large", "medium"]
    assert names(as_member, "marker=2") == ["medium", "large"]
    for wrong in ("minRam=x", "marker=nobody", "sort_dir=up", "limit=-1", "is_public=perhaps"):
        assert as_member.get(f"{FLAVORS}?{wrong}").status_code == (200 if "public" in wrong else 400), wrong


def test_shapes(as_member: Api, as_admin: Api) -> None:
    made = make(as_admin, id="x1", swap=0)
    assert made["swap"] == ""
    assert as_member.at("2.75").get(f"{FLAVORS}/x1").json["flavor"]["swap"] == 0
    described = as_admin.at("2.55").put(f"{FLAVORS}/x1", json={"flavor": {"description": "big"}})
    assert described.json["flavor"]["description"] == "big"
    assert as_admin.put(f"{FLAVORS}/x1", json={"flavor": {"description": "x"}}).status_code == 404
    assert as_member.at("2.61").get(f"{FLAVORS}/x1").json["flavor"]["extra_specs"] == {}
    assert as_admin.delete(f"{FLAVORS}/x1").status_code == 202
    assert as_member.get(f"{FLAVORS}/x1").status_code == 404


def test_private_flavors_are_visible_to_projects_with_access(as_member: Api, as_admin: Api) -> None:
    flavor_id = make(as_admin, **{"os-flavor-access:is_public": False})["id"]
    path = f"{FLAVORS}/{flavor_id}"
    assert as_member.get(path).status_code == 404
    assert "f" not in names(as_member, "is_public=None")
    assert names(as_admin, "is_public=False") == ["f"]
    assert "f" in names(as_admin, "is_public=None")
    add = {"addTenantAccess": {"tenant": as_member.project_id}}
    given = as_admin.post(f"{path}/action", json=add).json["flavor_access"]
    assert given == [{"flavor_id": flavor_id, "tenant_id": as_member.project_id}]
    assert as_member.get(path).status_code == 200
    assert as_admin.post(f"{path}/action", json=add).status_code == 409
    remove = {"removeTenantAccess": {"tenant": as_member.project_id}}
    assert as_admin.post(f"{path}/action", json=remove).json["flavor_access"] == []
    assert as_admin.post(f"{path}/action", json=remove).status_code == 404
    assert as_admin.at("2.7").post(f"{FLAVORS}/1/action", json=add).status_code == 409
    assert as_member.post(f"{path}/action", json=add).status_code == 403


def test_extra_specs(as_member: Api, as_admin: Api) -> None:
    path = f"{FLAVORS}/1/os-extra_specs"
    specs = {"hw:cpu_sockets": "1", "anything": "2"}
    assert as_admin.post(path, json={"extra_specs": specs}).json == {"extra_specs": specs}
    assert as_member.get(path).json == {"extra_specs": specs}
    assert as_admin.put(f"{path}/anything", json={"anything": "3"}).json == {"anything": "3"}
    assert as_member.get(f"{path}/anything").json == {"anything": "3"}
    assert as_admin.put(f"{path}/anything", json={"other": "3"}).status_code == 400
    assert as_admin.delete(f"{path}/anything").status_code == 200
    assert as_member.get(f"{path}/anything").status_code == 404
    assert as_member.post(path, json={"extra_specs": {}}).status_code == 403


@pytest.mark.parametrize(
    "fields",
    [{"ram": 0}, {"vcpus": 0}, {"disk": -1}, {"name": " "}, {"name": "x" * 256}, {"ram": "much"}, {"rxtx_factor": -1}],
)
def test_invalid_flavors_are_rejected(as_admin: Api, fields: dict[str, object]) -> None:
    body = {"flavor": {"name": "f", "ram": 256, "vcpus": 1, "disk": 3, **fields}}
    assert as_admin.post(FLAVORS, json=body).status_code == 400


def test_names_and_ids_are_unique(as_admin: Api) -> None:
    make(as_admin, id="one")
    body = {"flavor": {"name": "f", "ram": 256, "vcpus": 1, "disk": 3}}
    assert as_admin.post(FLAVORS, json=body).status_code == 409
    body["flavor"] |= {"name": "g", "id": "one"}
    assert as_admin.post(FLAVORS, json=body).status_code == 409


def test_extra_specs_reach_the_host(as_member: Api, as_admin: Api, host: Host, make_server: Callable[..., str]) -> None:
    made = make(as_admin, vcpus=4)
    specs = {"hw:cpu_sockets": "2", "quota:disk_read_iops_sec": "100", "quota:vif_inbound_average": "125"}
    path = f"{FLAVORS}/{made['id']}/os-extra_specs"
    assert as_admin.at("2.86").post(path, json={"extra_specs": specs}).status_code == 200
    spec = host.hypervisor.machines[make_server(flavorRef=made["id"])].spec
    assert spec.topology is not None
    assert (spec.topology.sockets, spec.topology.cores, spec.topology.threads) == (2, 2, 1)
    assert spec.disk_limits is not None
    assert spec.disk_limits.read_requests == 100
    assert spec.nics[0].inbound is not None
    assert spec.nics[0].inbound.average == 125_000
    assert spec.nics[0].outbound is None


def test_extra_specs_are_checked_from_2_86_on(as_admin: Api) -> None:
    path = f"{FLAVORS}/1/os-extra_specs"
    wrong = {"extra_specs": {"hw:cpu_policy": "often"}}
    assert as_admin.at("2.85").post(path, json=wrong).status_code == 200
    refused = as_admin.at("2.86").post(path, json=wrong)
    assert refused.status_code == 400
    assert "'often' is not one of: dedicated, shared, mixed." in refused.json["badRequest"]["message"]
    assert as_admin.at("2.86").put(f"{path}/hw:nonsense", json={"hw:nonsense": "1"}).status_code == 400
    assert as_admin.at("2.86").put(f"{path}/ours:own", json={"ours:own": "1"}).status_code == 200


def test_servers_with_unsupported_extra_specs_are_rejected(
    as_admin: Api, host: Host, make_server: Callable[..., str], image: str
) -> None:
    made = make(as_admin)
    path = f"{FLAVORS}/{made['id']}/os-extra_specs"
    assert as_admin.at("2.86").post(path, json={"extra_specs": {"hw:cpu_policy": "dedicated"}}).status_code == 200
    server_id = make_server()
    body = {"server": {"name": "s", "imageRef": image, "flavorRef": made["id"]}}
    refused = as_admin.post("/compute/v2.1/servers", json=body)
    assert refused.status_code == 400
    assert "guests share the processors of their host" in refused.json["badRequest"]["message"]
    resized = as_admin.post(f"/compute/v2.1/servers/{server_id}/action", json={"resize": {"flavorRef": made["id"]}})
    assert resized.status_code == 400
    assert as_admin.get(f"/compute/v2.1/servers/{server_id}").json["server"]["status"] == "ACTIVE"
