"""Nova's proxy APIs for networks and volumes, which end with microversion 2.35, and its list of extensions."""

from collections.abc import Callable

import pytest

from tests.api.conftest import Api

COMPUTE = "/compute/v2.1"
ABSENT = "11111111-2222-4333-8444-555555555555"
LISTS = {
    "os-floating-ip-pools": "floating_ip_pools",
    "os-floating-ips": "floating_ips",
    "os-security-groups": "security_groups",
    "os-volumes": "volumes",
    "os-volumes/detail": "volumes",
    "os-snapshots": "snapshots",
    "os-snapshots/detail": "snapshots",
}


@pytest.mark.parametrize("version", ["2.1", "2.35"])
def test_proxy_lists_are_empty_up_to_2_35(as_member: Api, version: str) -> None:
    for path, key in LISTS.items():
        assert as_member.at(version).get(f"{COMPUTE}/{path}").json == {key: []}


@pytest.mark.parametrize("version", ["2.36", "2.96"])
def test_proxies_are_not_found_from_2_36_on(as_member: Api, version: str) -> None:
    for path in (*LISTS, "os-networks", "os-tenant-networks", f"os-volumes/{ABSENT}", f"os-networks/{ABSENT}"):
        answer = as_member.at(version).get(f"{COMPUTE}/{path}")
        assert answer.status_code == 404, path
        assert answer.json["itemNotFound"]["code"] == 404


def test_networks_are_listed_and_shown_by_proxy(as_member: Api, as_admin: Api) -> None:
    seen = {(one["id"], one["name"]) for one in as_member.get("/network/v2.0/networks").json["networks"]}
    listed = as_member.get(f"{COMPUTE}/os-networks").json["networks"]
    assert {(one["id"], one["label"]) for one in listed} == seen
    assert "bridge" not in listed[0]
    assert listed[0]["cidr"] is None
    shown = as_member.get(f"{COMPUTE}/os-networks/{listed[0]['id']}").json["network"]
    assert shown == listed[0]
    assert as_admin.get(f"{COMPUTE}/os-networks/{listed[0]['id']}").json["network"]["bridge"] is None
    short = as_member.get(f"{COMPUTE}/os-tenant-networks/{listed[0]['id']}").json["network"]
    assert short == {"id": shown["id"], "label": shown["label"], "cidr": "None"}
    assert len(as_member.get(f"{COMPUTE}/os-tenant-networks").json["networks"]) == len(listed)


def test_networks_of_other_projects_are_not_proxied(as_member: Api, as_admin: Api) -> None:
    hidden = as_admin.post("/network/v2.0/networks", json={"network": {"name": "hidden"}}).json["network"]["id"]
    assert as_member.get(f"{COMPUTE}/os-networks/{hidden}").status_code == 404
    assert hidden not in {one["id"] for one in as_member.get(f"{COMPUTE}/os-networks").json["networks"]}
    assert hidden in {one["id"] for one in as_admin.get(f"{COMPUTE}/os-networks").json["networks"]}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"os-floating-ips/{ABSENT}", 404),
        ("DELETE", f"os-floating-ips/{ABSENT}", 404),
        ("POST", "os-floating-ips", 404),
        ("GET", f"os-security-groups/{ABSENT}", 404),
        ("PUT", f"os-security-groups/{ABSENT}", 404),
        ("DELETE", f"os-security-groups/{ABSENT}", 404),
        ("GET", "os-security-groups/nonsense", 400),
        ("POST", "os-security-groups", 403),
        ("POST", "os-security-group-rules", 404),
        ("DELETE", f"os-security-group-rules/{ABSENT}", 404),
        ("GET", f"os-volumes/{ABSENT}", 404),
        ("DELETE", f"os-volumes/{ABSENT}", 404),
        ("POST", "os-volumes", 403),
        ("GET", f"os-snapshots/{ABSENT}", 404),
        ("POST", "os-snapshots", 403),
        ("POST", "os-networks", 410),
        ("DELETE", "os-tenant-networks/1", 410),
        ("GET", "os-fixed-ips/fd00::1", 410),
        ("GET", "os-floating-ip-dns", 410),
        ("GET", "os-floating-ips-bulk", 410),
        ("GET", "os-security-group-default-rules", 410),
    ],
)
def test_proxies_reject_requests_as_nova_does(as_member: Api, method: str, path: str, status: int) -> None:
    body = None if method in ("GET", "DELETE") else {}
    assert as_member.request(method, f"{COMPUTE}/{path}", json=body).status_code == status


def test_floating_ips_cannot_be_added_to_servers(as_member: Api, make_server: Callable[..., str]) -> None:
    path = f"{COMPUTE}/servers/{make_server()}/action"
    add, remove = {"addFloatingIp": {"address": "192.0.2.1"}}, {"removeFloatingIp": {"address": "192.0.2.1"}}
    assert as_member.post(path, json=add).status_code == 400
    assert as_member.post(path, json=remove).status_code == 404
    assert as_member.at("2.44").post(path, json=add).status_code == 404


def test_extensions_have_novas_aliases(as_member: Api) -> None:
    extensions = {one["alias"]: one for one in as_member.get(f"{COMPUTE}/extensions").json["extensions"]}
    assert len(extensions) == 99
    assert {"OS-DCF", "OS-SCH-HNT", "os-keypairs", "os-server-groups", "os-floating-ips", "os-volumes"} <= {*extensions}
    assert extensions["os-keypairs"]["name"] == "Keypairs"
    assert as_member.get(f"{COMPUTE}/extensions/os-keypairs").json["extension"] == extensions["os-keypairs"]
    assert as_member.get(f"{COMPUTE}/extensions/nonsense").status_code == 404
