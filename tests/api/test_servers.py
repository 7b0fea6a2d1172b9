"""Servers through the API on a fake host: create, show, list, change, delete, rejected requests."""

import base64
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest

from hypervisor.api.errors import LaunchFailed
from hypervisor.guest_data import config_drive
from tests.api.conftest import Api, Host

SERVERS = "/compute/v2.1/servers"


def status(api: Api, server_id: str) -> str:
    return api.get(f"{SERVERS}/{server_id}").json["server"]["status"]


def test_a_server_is_visible_at_once_and_becomes_active(
    as_member: Api, make_server: Callable[..., str], host: Host
) -> None:
    server_id = make_server(work=False)
    building = as_member.get(f"{SERVERS}/{server_id}").json["server"]
    assert building["status"] == "BUILD"
    assert building["addresses"] == {}
    assert building["OS-EXT-STS:task_state"] == "spawning"

    host.work()

    active = as_member.get(f"{SERVERS}/{server_id}").json["server"]
    assert active["status"] == "ACTIVE"
    assert active["OS-EXT-STS:power_state"] == 1
    (address,) = active["addresses"]["public"]
    assert address["version"] == 6
    assert address["OS-EXT-IPS:type"] == "fixed"
    assert active["accessIPv6"] == address["addr"]
    mac = bytes.fromhex(address["OS-EXT-IPS-MAC:mac_addr"].replace(":", ""))
    suffix = bytes([mac[0] ^ 2, mac[1], mac[2], 0xFF, 0xFE, *mac[3:]])
    assert IPv6Address(address["addr"]).packed[8:] == suffix


def test_the_host_gets_a_complete_document(as_member: Api, make_server: Callable[..., str], host: Host) -> None:
    key = as_member.post("/compute/v2.1/os-keypairs", json={"keypair": {"name": "k"}}).json["keypair"]
    server_id = make_server(name="my server", key_name="k", metadata={"role": "ci"}, user_data="IyEvYmluL3NoCg==")
    spec = host.hypervisor.machines[server_id].spec
    assert spec.hostname == "my-server"
    assert spec.memory_mib == 128
    assert spec.key is not None
    assert spec.key.data == key["public_key"]
    assert spec.metadata == {"role": "ci"}
    assert spec.user_data == "IyEvYmluL3NoCg=="
    assert spec.disks[0].image is not None
    assert spec.disks[0].image.disk_format == "raw"
    assert spec.admin_pass


def test_a_hostname_is_one_label_made_of_the_name(make_server: Callable[..., str], host: Host) -> None:
    def hostname(name: str) -> str:
        return host.hypervisor.machines[make_server(name=name)].spec.hostname

    assert hostname("Web_1.example.org") == "web-1-example-org"
    assert hostname("-a b.") == "a-b"
    assert hostname("服务器").startswith("Server-")


def test_a_deleted_server_leaves_nothing(as_member: Api, make_server: Callable[..., str], host: Host) -> None:
    server_id = make_server()
    assert as_member.delete(f"{SERVERS}/{server_id}").status_code == 204
    host.work()
    assert as_member.get(f"{SERVERS}/{server_id}").status_code == 404
    assert as_member.delete(f"{SERVERS}/{server_id}").status_code == 404
    assert host.hypervisor.machines == {}
    assert as_member.get(f"/network/v2.0/ports?device_id={server_id}").json["ports"] == []
    used = as_member.get("/compute/v2.1/limits").json["limits"]["absolute"]
    assert (used["totalInstancesUsed"], used["totalCoresUsed"], used["totalRAMUsed"]) == (0, 0, 0)


def test_a_delete_wins_over_a_build(as_member: Api, make_server: Callable[..., str], host: Host) -> None:
    server_id = make_server(work=False)
    (operation_id,) = host.conductor.waiting()
    building = host.conductor.claim(operation_id)
    assert building is not None
    assert as_member.delete(f"{SERVERS}/{server_id}").status_code == 204
    from compute_api.rpc.messages import Outcome

    host.conductor.finish(building, Outcome())
    assert as_member.get(f"{SERVERS}/{server_id}").json["server"]["OS-EXT-STS:task_state"] == "deleting"
    host.work()
    assert as_member.get(f"{SERVERS}/{server_id}").status_code == 404


def test_stop_start_and_reboot(as_member: Api, make_server: Callable[..., str], host: Host) -> None:
    server_id = make_server()
    for action, resting in (
        ({"os-stop": None}, "SHUTOFF"),
        ({"os-start": None}, "ACTIVE"),
        ({"reboot": {"type": "SOFT"}}, "ACTIVE"),
        ({"reboot": {"type": "HARD"}}, "ACTIVE"),
        ({"pause": None}, "PAUSED"),
        ({"unpause": None}, "ACTIVE"),
    ):
        answer = as_member.post(f"{SERVERS}/{server_id}/action", json=action)
        assert answer.status_code == 202, answer.text
        host.work()
        assert status(as_member, server_id) == resting


def test_action_in_a_wrong_state_is_409_with_novas_message(as_member: Api, make_server: Callable[..., str]) -> None:
    server_id = make_server()
    answer = as_member.post(f"{SERVERS}/{server_id}/action", json={"os-start": None})
    assert answer.status_code == 409
    assert answer.json["conflictingRequest"]["message"] == (
        f"Cannot 'start' instance {server_id} while it is in vm_state active"
    )


def test_a_second_action_waits_for_the_first(as_member: Api, make_server: Callable[..., str]) -> None:
    server_id = make_server()
    assert as_member.post(f"{SERVERS}/{server_id}/action", json={"os-stop": None}).status_code == 202
    answer = as_member.post(f"{SERVERS}/{server_id}/action", json={"reboot": {"type": "SOFT"}})
    assert answer.status_code == 409
    assert "task_state powering-off" in answer.json["conflictingRequest"]["message"]


def test_failed_launch_has_a_fault_message(as_member: Api, make_server: Callable[..., str], host: Host) -> None:
    host.hypervisor.fail_next("ensure_running", LaunchFailed("qemu did not start: out of memory"))
    server_id = make_server()
    shown = as_member.get(f"{SERVERS}/{server_id}").json["server"]
    assert shown["status"] == "ERROR"
    assert shown["fault"]["message"] == "qemu did not start: out of memory"
    (action,) = as_member.get(f"{SERVERS}/{server_id}/os-instance-actions").json["instanceActions"]
    assert action["message"] == "Error"
    assert as_member.delete(f"{SERVERS}/{server_id}").status_code == 204
    host.work()
    assert as_member.get(f"{SERVERS}/{server_id}").status_code == 404


def test_no_valid_host_is_a_server_in_error_with_the_reasons(
    as_member: Api, make_server: Callable[..., str], host: Host
) -> None:
    host.hypervisor.memory_mib = 1024
    host.conductor.register(host.hypervisor.describe())
    server_id = make_server(flavorRef="3")
    shown = as_member.get(f"{SERVERS}/{server_id}").json["server"]
    assert shown["status"] == "ERROR"
    assert shown["fault"]["message"].startswith("No valid host was found. fake-host: 2048 MiB of memory wanted")
    assert as_member.delete(f"{SERVERS}/{server_id}").status_code == 204
    assert as_member.get(f"{SERVERS}/{server_id}").status_code == 404


def test_twenty_in_one_request_have_distinct_addresses(
    as_member: Api, make_server: Callable[..., str], host: Host
) -> None:
    make_server(name="many", max_count=20)
    servers = as_member.get(f"{SERVERS}/detail").json["servers"]
    assert len(servers) == 20
    assert {server["status"] for server in servers} == {"ACTIVE"}
    assert len({server["accessIPv6"] for server in servers}) == 20
    assert {server["name"] for server in servers} == {f"many-{number}" for number in range(1, 21)}


def test_quota_error_has_novas_message(
    as_admin: Api, as_member: Api, make_server: Callable[..., str], image: str
) -> None:
    path = f"/compute/v2.1/os-quota-sets/{as_member.project_id}"
    assert as_admin.put(path, json={"quota_set": {"instances": 1}}).status_code == 200
    make_server()
    answer = as_member.post(SERVERS, json={"server": {"name": "x", "imageRef": image, "flavorRef": "1"}})
    assert answer.status_code == 403
    assert answer.json["forbidden"]["message"].startswith(
        "Quota exceeded for instances: Requested 1, but already used 1 of 1 instances"
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"imageRef": "11111111-2222-3333-4444-555555555555"}, "Can not find requested image"),
        ({"flavorRef": "99"}, "Flavor 99 could not be found."),
        ({"key_name": "nobody"}, "Invalid key_name provided."),
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": 5}, "is not of type 'string'"),
        ({"networks": [{"uuid": "11111111-2222-3333-4444-555555555555"}]}, "could not be found"),
        ({"security_groups": [{"name": "web"}]}, "Security group web not found"),
        ({"user_data": "not base64!"}, "user_data"),
        ({"metadata": {"a": "b" * 256}}, "metadata"),
        ({"metadata": {"a/b": "c"}}, "metadata"),
        ({"networks": [{"port": "11111111-2222-3333-4444-555555555555"}]}, "could not be found"),
        ({"min_count": 3, "max_count": 2}, "min_count must be <= max_count"),
        ({"personality": [{"path": "/x", "contents": "not base64!"}]}, "contents"),
        ({"unknown": 1}, "Additional properties are not allowed ('unknown' was unexpected)"),
        ({"block_device_mapping_v2": [{"source_type": "volume", "uuid": "x", "boot_index": 0}]}, "no volumes"),
    ],
)
def test_bad_input_is_a_400_with_a_message(
    as_member: Api, image: str, host: Host, fields: dict[str, object], reason: str
) -> None:
    body = {"server": {"name": "x", "imageRef": image, "flavorRef": "1", **fields}}
    answer = as_member.post(SERVERS, json=body)
    assert answer.status_code == 400, answer.text
    assert reason in answer.json["badRequest"]["message"]
    assert as_member.get(SERVERS).json["servers"] == []


def test_broken_json_is_a_400(as_member: Api) -> None:
    answer = as_member.post(SERVERS, data=b"{", content_type="application/json")
    assert answer.status_code == 400
    assert "malformed" in answer.json["badRequest"]["message"]


def test_a_body_that_is_far_too_large_is_refused(as_member: Api) -> None:
    answer = as_member.post(SERVERS, data=b" " * (2 << 20), content_type="application/json")
    assert answer.status_code == 413
    assert "overLimit" in answer.json


def test_another_projects_server_does_not_exist(as_admin: Api, as_member: Api, make_server: Callable[..., str]) -> None:
    server_id = make_server()
    assert as_admin.get(f"{SERVERS}/{server_id}").status_code == 200
    assert as_admin.get(SERVERS).json["servers"] == []
    assert len(as_admin.get(f"{SERVERS}?all_tenants=1").json["servers"]) == 1
    assert as_member.get(f"{SERVERS}?all_tenants=1").status_code == 403


def test_pages_follow_each_other(as_member: Api, make_server: Callable[..., str]) -> None:
    make_server(name="n", max_count=5)
    seen: list[str] = []
    path = f"{SERVERS}?limit=2"
    while path:
        body = as_member.get(path).json
        seen += [server["name"] for server in body["servers"]]
        path = next((link["href"] for link in body.get("servers_links", [])), "")
    assert seen == ["n-5", "n-4", "n-3", "n-2", "n-1"]


def test_filters(as_member: Api, make_server: Callable[..., str]) -> None:
    make_server(name="web-1")
    make_server(name="db-1")
    names = lambda query: [one["name"] for one in as_member.get(f"{SERVERS}?{query}").json["servers"]]  # noqa: E731
    assert names("name=web") == ["web-1"]
    assert names("name=^.*-1$") == ["db-1", "web-1"]
    assert names("status=ACTIVE&sort_key=display_name&sort_dir=asc") == ["db-1", "web-1"]
    assert names("status=SHUTOFF") == []
    assert as_member.at("2.38").get(f"{SERVERS}?status=NONSENSE").status_code == 400
    assert as_member.get(f"{SERVERS}?marker=nobody").status_code == 400
    assert as_member.get(f"{SERVERS}?limit=x").status_code == 400


def test_metadata(as_member: Api, make_server: Callable[..., str]) -> None:
    path = f"{SERVERS}/{make_server(metadata={'a': '1'})}/metadata"
    assert as_member.post(path, json={"metadata": {"b": "2"}}).json == {"metadata": {"a": "1", "b": "2"}}
    assert as_member.put(f"{path}/b", json={"meta": {"b": "3"}}).json == {"meta": {"b": "3"}}
    assert as_member.get(f"{path}/b").json == {"meta": {"b": "3"}}
    assert as_member.delete(f"{path}/a").status_code == 204
    assert as_member.get(f"{path}/a").status_code == 404
    assert as_member.put(path, json={"metadata": {"c": "4"}}).json == {"metadata": {"c": "4"}}


@pytest.mark.parametrize("key", ["a/b", "a@b", "ä", "a\n"])
def test_metadata_keys_are_letters_digits_and_a_few_more(
    as_member: Api, make_server: Callable[..., str], key: str
) -> None:
    server_id = make_server(metadata={"A-z_0:9. ": "kept"})
    for method in ("POST", "PUT"):
        answer = as_member.request(method, f"{SERVERS}/{server_id}/metadata", json={"metadata": {key: "x"}})
        assert answer.status_code == 400
    assert as_member.put(f"{SERVERS}/{server_id}/metadata/{key}", json={"meta": {key: "x"}}).status_code in (400, 404)
    assert as_member.get(f"{SERVERS}/{server_id}/metadata").json["metadata"] == {"A-z_0:9. ": "kept"}


def test_user_data_may_have_line_breaks(
    as_member: Api, as_admin: Api, make_server: Callable[..., str], host: Host
) -> None:
    script = b"#!/bin/sh\n" + b"echo hello\n" * 30
    encoded = base64.encodebytes(script).decode()
    assert "\n" in encoded
    server_id = make_server(user_data=encoded)
    assert config_drive.openstack_files(host.hypervisor.machines[server_id].spec, {})["user_data"] == script
    shown = as_admin.at("2.3").get(f"{SERVERS}/{server_id}").json["server"]
    assert shown["OS-EXT-SRV-ATTR:user_data"] == encoded


def test_files_are_injected_up_to_2_56(as_member: Api, image: str, make_server: Callable[..., str], host: Host) -> None:
    file = {"path": "/etc/motd", "contents": base64.b64encode(b"hello").decode()}
    server_id = make_server(personality=[file])
    assert [one.model_dump() for one in host.hypervisor.machines[server_id].spec.files] == [file]
    body = {"server": {"name": "x", "imageRef": image, "flavorRef": "1", "networks": "none", "personality": [file]}}
    assert as_member.at("2.57").post(SERVERS, json=body).status_code == 400
    for files in ([file] * 6, [file | {"path": "/" * 256}], [file | {"contents": "A" * 13_660}]):
        body["server"]["personality"] = files
        refused = as_member.at("2.56").post(SERVERS, json=body)
        assert refused.status_code == 403
        assert "Personality file" in refused.json["forbidden"]["message"]
    limits = as_member.get("/compute/v2.1/limits").json["limits"]["absolute"]
    assert (limits["maxPersonality"], limits["maxPersonalitySize"]) == (5, 10240)
    rebuilt = as_member.post(f"{SERVERS}/{server_id}/action", json={"rebuild": {"imageRef": image}})
    assert rebuilt.status_code == 202
    host.work()
    assert host.hypervisor.machines[server_id].spec.files == ()


def test_network_info_is_injected_by_admins(as_member: Api, as_admin: Api, make_server: Callable[..., str]) -> None:
    path = f"{SERVERS}/{make_server()}/action"
    assert as_admin.post(path, json={"injectNetworkInfo": None}).status_code == 202
    assert as_member.post(path, json={"injectNetworkInfo": None}).status_code == 403
    assert as_admin.post(f"{SERVERS}/nowhere/action", json={"injectNetworkInfo": None}).status_code == 404
    assert as_admin.post(path, json={"resetNetwork": None}).status_code == 410


def test_a_guest_that_powers_itself_off_is_shown_as_shut_off(
    as_member: Api, make_server: Callable[..., str], host: Host
) -> None:
    server_id = make_server()
    host.hypervisor.guest_powers_off(server_id)
    host.reconcile()
    assert status(as_member, server_id) == "SHUTOFF"


def test_a_machine_without_a_server_is_removed(make_server: Callable[..., str], host: Host, as_member: Api) -> None:
    server_id = make_server()
    machines = dict(host.hypervisor.machines)
    as_member.delete(f"{SERVERS}/{server_id}")
    host.work()
    host.hypervisor.machines.update(machines)
    host.reconcile()
    assert host.hypervisor.machines == {}


def test_the_console(as_member: Api, make_server: Callable[..., str], host: Host) -> None:
    server_id = make_server()
    host.hypervisor.machines[server_id].console = b"one\ntwo\nthree\n"
    path = f"{SERVERS}/{server_id}/action"
    assert as_member.post(path, json={"os-getConsoleOutput": {}}).json == {"output": "one\ntwo\nthree\n"}
    assert as_member.post(path, json={"os-getConsoleOutput": {"length": 2}}).json == {"output": "two\nthree"}


def test_microversions_change_what_is_shown(as_member: Api, make_server: Callable[..., str]) -> None:
    path = f"{SERVERS}/{make_server()}"
    assert as_member.get(path).json["server"]["flavor"]["id"] == "1"
    newest = as_member.at("2.96").get(path)
    assert newest.json["server"]["flavor"]["original_name"] == "tiny"
    assert newest.json["server"]["locked"] is False
    assert newest.headers["OpenStack-API-Version"] == "compute 2.96"
    refused = as_member.at("2.500").get(path)
    assert refused.status_code == 406
    assert "Maximum is 2.96" in refused.text or "maximum is 2.96" in refused.text
    assert as_member.at("nonsense").get(path).status_code == 400
