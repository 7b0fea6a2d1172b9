"""Server actions on a fake host: rebuild, resize, rescue, shelve, images, interfaces."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from compute_agent.agent import Agent
from compute_agent.tasks import carry_out
from compute_api.conductor.service import LocalConductor
from compute_api.rpc.messages import Outcome
from hypervisor.api.errors import HypervisorError, LaunchFailed
from hypervisor.api.spec import MachineState
from hypervisor.guest_data.config_drive import meta_data
from tests.api.conftest import Api, Host

SERVERS = "/compute/v2.1/servers"
MakeServer = Callable[..., str]


def shown(api: Api, server_id: str) -> dict[str, Any]:
    server: dict[str, Any] = api.get(f"{SERVERS}/{server_id}").json["server"]
    return server


def act(api: Api, server_id: str, body: dict[str, Any], status: int = 202) -> Any:
    answer = api.post(f"{SERVERS}/{server_id}/action", json=body)
    assert answer.status_code == status, answer.text
    return answer


def usage(api: Api) -> tuple[int, int, int]:
    used = api.get("/compute/v2.1/limits").json["limits"]["absolute"]
    return used["totalInstancesUsed"], used["totalCoresUsed"], used["totalRAMUsed"]


def room(admin: Api) -> tuple[int, int, int]:
    host = admin.at("2.1").get("/compute/v2.1/os-hypervisors/detail").json["hypervisors"][0]
    return host["vcpus_used"], host["memory_mb_used"], host["local_gb_used"]


@pytest.fixture
def other_image(as_member: Api) -> str:
    body = {"name": "other", "disk_format": "raw", "container_format": "bare"}
    image_id: str = as_member.post("/image/v2/images", json=body).json["id"]
    headers = {"Content-Type": "application/octet-stream"}
    as_member.put(f"/image/v2/images/{image_id}/file", data=bytes(1 << 20), headers=headers)
    return image_id


# --- rebuild --------------------------------------------------------------------------------------------------------


def test_rebuilt_server_keeps_its_address_and_gets_the_new_image(
    as_member: Api, make_server: MakeServer, host: Host, other_image: str
) -> None:
    server_id = make_server(metadata={"old": "yes"})
    host.hypervisor.machines[server_id].disk = b"written"
    before = shown(as_member, server_id)
    asked = {"imageRef": other_image, "name": "renamed", "metadata": {"new": "yes"}, "adminPass": "s3cret-of-mine"}
    answer = act(as_member, server_id, {"rebuild": asked}).json["server"]
    assert answer["adminPass"] == "s3cret-of-mine"
    assert answer["status"] == "REBUILD"
    assert answer["image"]["id"] == other_image
    assert "OS-EXT-STS:vm_state" not in answer
    host.work()
    after = shown(as_member, server_id)
    assert after["status"] == "ACTIVE"
    assert after["addresses"] == before["addresses"]
    assert (after["name"], after["metadata"]) == ("renamed", {"new": "yes"})
    assert host.hypervisor.machines[server_id].disk == b"fresh"
    assert host.hypervisor.machines[server_id].spec.disks[0].image.id == other_image  # type: ignore[union-attr]
    assert host.hypervisor.machines[server_id].spec.admin_pass == "s3cret-of-mine"
    assert after["OS-SRV-USG:launched_at"] == before["OS-SRV-USG:launched_at"], "usage is counted from the first launch"


def test_rebuild_response_by_microversion(as_member: Api, make_server: MakeServer, image: str, host: Host) -> None:
    as_member.post("/compute/v2.1/os-keypairs", json={"keypair": {"name": "k"}})
    server_id = make_server(user_data="IyEvYmluL3NoCg==")
    for version, body, has, has_not in (
        ("2.53", {}, "adminPass", "key_name"),
        ("2.54", {"key_name": "k"}, "key_name", "user_data"),
        ("2.57", {"key_name": None, "user_data": None}, "user_data", "OS-EXT-STS:vm_state"),
        ("2.96", {"hostname": "other-name"}, "OS-EXT-STS:vm_state", "nothing"),
    ):
        api = as_member.at(version)
        answer = act(api, server_id, {"rebuild": {"imageRef": image, **body}}).json["server"]
        assert has in answer
        assert has_not not in answer
        host.work()
    spec = host.hypervisor.machines[server_id].spec
    assert (spec.key, spec.user_data, spec.hostname) == (None, None, "other-name")
    act(as_member.at("2.53"), server_id, {"rebuild": {"imageRef": image, "key_name": "k"}}, 400)
    act(as_member, server_id, {"rebuild": {"imageRef": "11111111-2222-4333-8444-555555555555"}}, 400)
    act(as_member, server_id, {"rebuild": {"imageRef": image, "personality": [{"path": "/x", "contents": "?"}]}}, 400)
    assert shown(as_member, server_id)["status"] == "ACTIVE"


def test_a_stopped_server_is_rebuilt_and_stays_off(
    as_member: Api, make_server: MakeServer, host: Host, image: str
) -> None:
    server_id = make_server()
    act(as_member, server_id, {"os-stop": None})
    host.work()
    act(as_member, server_id, {"rebuild": {"imageRef": image}})
    host.work()
    assert shown(as_member, server_id)["status"] == "SHUTOFF"
    assert host.hypervisor.machines[server_id].state is MachineState.SHUTOFF


# --- resize ---------------------------------------------------------------------------------------------------------


def test_a_resize_is_confirmed(as_member: Api, as_admin: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    act(as_member, server_id, {"resize": {"flavorRef": "2", "OS-DCF:diskConfig": "AUTO"}})
    begun = shown(as_member, server_id)
    assert (begun["status"], begun["OS-DCF:diskConfig"]) == ("RESIZE", "AUTO")
    host.work()
    verify = shown(as_member, server_id)
    assert (verify["status"], verify["flavor"]["id"]) == ("VERIFY_RESIZE", "2")
    assert host.hypervisor.machines[server_id].spec.memory_mib == 512
    assert usage(as_member) == (1, 1, 512)
    act(as_member, server_id, {"os-stop": None}, 409)
    act(as_member, server_id, {"confirmResize": None}, 204)
    host.work()
    assert shown(as_member, server_id)["status"] == "ACTIVE"
    assert usage(as_member) == (1, 1, 512)
    assert room(as_admin) == (1, 512, 5)
    act(as_member, server_id, {"confirmResize": None}, 409)


def test_a_resize_is_taken_back(as_member: Api, as_admin: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    host.hypervisor.machines[server_id].disk = b"old"
    act(as_member, server_id, {"resize": {"flavorRef": "3"}})
    host.work()
    host.hypervisor.machines[server_id].disk = b"new"
    act(as_member, server_id, {"revertResize": None})
    assert shown(as_member, server_id)["status"] == "REVERT_RESIZE"
    host.work()
    reverted = shown(as_member, server_id)
    assert (reverted["status"], reverted["flavor"]["id"]) == ("ACTIVE", "1")
    assert host.hypervisor.machines[server_id].spec.memory_mib == 128
    assert host.hypervisor.machines[server_id].disk == b"old"
    assert usage(as_member) == (1, 1, 128)
    assert room(as_admin) == (1, 128, 1)


def test_a_stopped_server_is_resized_and_stays_off(as_member: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    act(as_member, server_id, {"os-stop": None})
    host.work()
    act(as_member, server_id, {"resize": {"flavorRef": "2"}})
    host.work()
    assert shown(as_member, server_id)["status"] == "VERIFY_RESIZE"
    assert shown(as_member, server_id)["OS-EXT-STS:power_state"] == 4
    host.reconcile()
    act(as_member, server_id, {"confirmResize": None}, 204)
    host.work()
    assert shown(as_member, server_id)["status"] == "SHUTOFF"


def test_resizes_that_cannot_be_are_refused_and_change_nothing(
    as_member: Api, as_admin: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server(flavorRef="2")
    same = act(as_member, server_id, {"resize": {"flavorRef": "2"}}, 400)
    assert same.json["badRequest"]["message"] == "When resizing, instances must change flavor!"
    act(as_member, server_id, {"resize": {"flavorRef": "nowhere"}}, 400)
    smaller = act(as_member, server_id, {"resize": {"flavorRef": "1"}}, 400)
    assert smaller.json["badRequest"]["message"].startswith("Server disk was unable to be resized because:")
    quota = f"/compute/v2.1/os-quota-sets/{as_member.project_id}"
    assert as_admin.put(quota, json={"quota_set": {"ram": 1024}}).status_code == 200
    over = act(as_member, server_id, {"resize": {"flavorRef": "3"}}, 403)
    assert over.json["forbidden"]["message"].startswith("Quota exceeded for ram: Requested 1536, but already used 512")
    assert as_admin.put(quota, json={"quota_set": {"ram": -1}}).status_code == 200
    host.hypervisor.memory_mib = 1024
    host.conductor.register(host.hypervisor.describe())
    full = act(as_member, server_id, {"resize": {"flavorRef": "3"}}, 400)
    assert full.json["badRequest"]["message"].startswith("No valid host was found.")
    assert shown(as_member, server_id)["status"] == "ACTIVE"
    assert usage(as_member) == (1, 1, 512)


def test_a_failed_resize_gives_the_old_flavor_back(
    as_member: Api, as_admin: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    host.hypervisor.fail_next("resize", LaunchFailed("no room on the disk"))
    act(as_member, server_id, {"resize": {"flavorRef": "2"}})
    host.work()
    failed = shown(as_member, server_id)
    assert (failed["status"], failed["flavor"]["id"]) == ("ERROR", "1")
    assert failed["fault"]["message"] == "no room on the disk"
    assert usage(as_member) == (1, 1, 128)
    assert room(as_admin) == (1, 128, 1)


def test_a_server_deleted_while_resized_gives_everything_back(
    as_member: Api, as_admin: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    act(as_member, server_id, {"resize": {"flavorRef": "2"}})
    host.work()
    assert as_member.delete(f"{SERVERS}/{server_id}").status_code == 204
    host.work()
    assert usage(as_member) == (0, 0, 0)
    assert room(as_admin) == (0, 0, 0)


# --- images ---------------------------------------------------------------------------------------------------------


def test_snapshot_of_a_running_server(as_member: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    host.hypervisor.machines[server_id].disk = b"what the guest wrote"
    body = {"createImage": {"name": "copy", "metadata": {"release": "7"}}}
    old = act(as_member, server_id, body)
    image_id = old.headers["Location"].rsplit("/", 1)[-1]
    assert shown(as_member, server_id)["OS-EXT-STS:task_state"] == "image_snapshot"
    assert shown(as_member, server_id)["status"] == "ACTIVE"
    host.work()
    made = as_member.get(f"/image/v2/images/{image_id}").json
    assert (made["status"], made["name"], made["release"]) == ("active", "copy", "7")
    assert (made["image_type"], made["instance_uuid"]) == ("snapshot", server_id)
    assert as_member.get(f"/image/v2/images/{image_id}/file").data.startswith(b"what the guest wrote")
    assert shown(as_member, server_id)["status"] == "ACTIVE"
    new = act(as_member.at("2.45"), server_id, body)
    assert "Location" not in new.headers
    assert new.json["image_id"] != image_id
    host.work()


def test_failed_image_is_removed_and_leaves_the_server_unchanged(
    as_member: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    host.hypervisor.fail_next("snapshot", HypervisorError("the disk is full"))
    image_id = act(as_member.at("2.45"), server_id, {"createImage": {"name": "copy"}}).json["image_id"]
    host.work()
    assert as_member.get(f"/image/v2/images/{image_id}").status_code == 404
    assert shown(as_member, server_id)["status"] == "ACTIVE"
    actions = as_member.at("2.84").get(f"{SERVERS}/{server_id}/os-instance-actions").json["instanceActions"]
    assert (actions[0]["action"], actions[0]["message"]) == ("createImage", "Error")


def test_image_over_quota_is_removed_and_leaves_server_unchanged(
    as_member: Api, make_server: MakeServer, host: Host, database: Database, clock: ManualClock, settings: Settings
) -> None:
    server_id = make_server()
    image_id = act(as_member.at("2.45"), server_id, {"createImage": {"name": "copy"}}).json["image_id"]
    kept = sorted((settings.state / "images" / "store").iterdir())
    Host(host.hypervisor, LocalConductor(database, clock, replace(settings, image_quota_gib=0))).work()
    assert as_member.get(f"/image/v2/images/{image_id}").status_code == 404
    assert sorted((settings.state / "images" / "store").iterdir()) == kept
    assert shown(as_member, server_id)["status"] == "ACTIVE"
    assert shown(as_member, server_id)["OS-EXT-STS:task_state"] is None
    [action, *_] = as_member.at("2.84").get(f"{SERVERS}/{server_id}/os-instance-actions").json["instanceActions"]
    path = f"{SERVERS}/{server_id}/os-instance-actions/{action['request_id']}"
    [event] = as_member.at("2.84").get(path).json["instanceAction"]["events"]
    assert (event["result"], "exceeds image size quota" in event["details"]) == ("Error", True)


def test_host_that_dies_before_reporting_an_image_keeps_no_copy(
    as_member: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    image_id = act(as_member.at("2.45"), server_id, {"createImage": {"name": "copy"}}).json["image_id"]
    work = host.conductor.claim(host.conductor.waiting()[0])
    assert work is not None
    assert work.spec is not None
    copy = host.hypervisor.snapshot(work.spec, image_id)
    work.store_image(copy)
    assert host.conductor.requeue() == 1
    host.work()
    assert not copy.path.exists()
    assert as_member.get(f"/image/v2/images/{image_id}").json["status"] == "active"
    assert shown(as_member, server_id)["OS-EXT-STS:task_state"] is None


def test_image_deleted_during_its_creation_is_tolerated(as_member: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    image_id = act(as_member.at("2.45"), server_id, {"createImage": {"name": "copy"}}).json["image_id"]
    assert as_member.delete(f"/image/v2/images/{image_id}").status_code == 204
    host.work()
    assert shown(as_member, server_id)["status"] == "ACTIVE"
    assert shown(as_member, server_id)["OS-EXT-STS:task_state"] is None


def test_backups_rotate(as_member: Api, make_server: MakeServer, host: Host, clock: ManualClock) -> None:
    server_id = make_server()
    made = []
    for number in range(3):
        clock.advance(10)
        body = {"createBackup": {"name": f"b{number}", "backup_type": "daily", "rotation": 2}}
        made.append(act(as_member.at("2.45"), server_id, body).json["image_id"])
        host.work()
    left = {image["id"] for image in as_member.get("/image/v2/images?image_type=backup").json["images"]}
    assert left == set(made[1:])
    act(as_member, server_id, {"createBackup": {"name": "b", "backup_type": "daily", "rotation": -1}}, 400)


def test_a_delete_overtakes_an_image(as_member: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    image_id = act(as_member.at("2.45"), server_id, {"createImage": {"name": "copy"}}).json["image_id"]
    assert as_member.delete(f"{SERVERS}/{server_id}").status_code == 204
    host.work()
    assert as_member.get(f"/image/v2/images/{image_id}").status_code == 404
    assert as_member.get(f"{SERVERS}/{server_id}").status_code == 404


# --- suspend, rescue, shelve ----------------------------------------------------------------------------------------


def test_suspend_and_resume(as_member: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    act(as_member, server_id, {"suspend": None})
    host.work()
    host.reconcile()
    assert shown(as_member, server_id)["status"] == "SUSPENDED"
    assert host.hypervisor.machines[server_id].suspended
    act(as_member, server_id, {"os-start": None}, 409)
    act(as_member, server_id, {"resume": None})
    host.work()
    assert shown(as_member, server_id)["status"] == "ACTIVE"


def test_server_stays_active_when_suspend_fails(as_member: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    host.hypervisor.fail_next("suspend", HypervisorError("qemu refused"))
    act(as_member, server_id, {"suspend": None})
    host.work()
    assert shown(as_member, server_id)["status"] == "ACTIVE"


def test_rescue_boots_from_another_disk(
    as_member: Api, make_server: MakeServer, host: Host, image: str, other_image: str
) -> None:
    server_id = make_server()
    answer = act(as_member, server_id, {"rescue": {"rescue_image_ref": other_image, "adminPass": "let-me-in"}}, 200)
    assert answer.json == {"adminPass": "let-me-in"}
    host.work()
    assert shown(as_member, server_id)["status"] == "RESCUE"
    disks = host.hypervisor.machines[server_id].spec.disks
    assert [disk.name for disk in disks] == ["rescue", "root"]
    assert disks[0].image is not None
    assert disks[0].image.id == other_image
    assert other_image in host.conductor.host_state().images_in_use
    act(as_member, server_id, {"unrescue": None})
    host.work()
    assert shown(as_member, server_id)["status"] == "ACTIVE"
    assert [disk.name for disk in host.hypervisor.machines[server_id].spec.disks] == ["root"]
    assert shown(as_member, server_id)["image"]["id"] == image


def test_shelved_server_has_no_host_and_is_restored_unchanged(
    as_member: Api, as_admin: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    before = shown(as_member, server_id)
    host.hypervisor.machines[server_id].disk = b"what the guest wrote"
    act(as_member, server_id, {"shelve": None})
    host.work()
    shelved = shown(as_member, server_id)
    assert (shelved["status"], shelved["hostId"]) == ("SHELVED_OFFLOADED", "")
    assert host.hypervisor.machines == {}
    assert room(as_admin) == (0, 0, 0)
    (image,) = as_member.get("/image/v2/images?name=server-shelved").json["images"]
    act(as_member, server_id, {"os-start": None}, 409)
    act(as_member, server_id, {"unshelve": None})
    host.work()
    after = shown(as_member, server_id)
    assert (after["status"], after["addresses"]) == ("ACTIVE", before["addresses"])
    assert after["image"] == before["image"]
    root = host.hypervisor.machines[server_id].spec.disks[0].image
    assert root is not None
    assert root.id == image["id"]
    assert as_member.get(f"/image/v2/images/{image['id']}").status_code == 404
    assert image["id"] in host.conductor.host_state().images_in_use, "the image is the backing file of its disk"
    assert room(as_admin) == (1, 128, 1)


def test_a_shelved_server_is_deleted_with_its_image(
    as_member: Api, as_admin: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    act(as_member, server_id, {"shelve": None})
    host.work()
    assert as_member.delete(f"{SERVERS}/{server_id}").status_code == 204
    assert as_member.get(f"{SERVERS}/{server_id}").status_code == 404
    assert as_member.get("/image/v2/images?name=server-shelved").json["images"] == []
    assert usage(as_member) == (0, 0, 0)
    assert room(as_admin) == (0, 0, 0)


def test_a_failed_unshelve_can_be_tried_again(
    as_member: Api, as_admin: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    act(as_member, server_id, {"shelve": None})
    host.work()
    host.hypervisor.fail_next("ensure_running", LaunchFailed("not today"))
    act(as_member, server_id, {"unshelve": None})
    host.work()
    assert shown(as_member, server_id)["status"] == "SHELVED_OFFLOADED"
    assert room(as_admin) == (0, 0, 0)
    act(as_member, server_id, {"unshelve": None})
    host.work()
    assert shown(as_member, server_id)["status"] == "ACTIVE"


# --- interfaces -----------------------------------------------------------------------------------------------------


def test_interfaces_are_attached_and_detached(as_member: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    path = f"{SERVERS}/{server_id}/os-interface"
    answer = as_member.post(path, json={"interfaceAttachment": {}})
    assert answer.status_code == 200, answer.text
    port_id = answer.json["interfaceAttachment"]["port_id"]
    host.work()
    assert as_member.get(f"{path}/{port_id}").json["interfaceAttachment"]["port_state"] == "ACTIVE"
    assert port_id in [nic.port_id for nic in host.hypervisor.machines[server_id].spec.nics]
    assert len(shown(as_member, server_id)["addresses"]["public"]) == 2
    assert as_member.delete(f"{path}/{port_id}").status_code == 202
    host.work()
    assert as_member.get(f"{path}/{port_id}").status_code == 404
    assert len(host.hypervisor.machines[server_id].spec.nics) == 1
    assert as_member.get(f"/network/v2.0/ports/{port_id}").status_code == 404
    assert as_member.delete(f"{path}/{port_id}").status_code == 404


def test_interface_tags_are_passed_to_the_guest(as_member: Api, host: Host, image: str) -> None:
    network_id = as_member.get("/network/v2.0/networks?name=public").json["networks"][0]["id"]
    network = {"uuid": network_id, "tag": "first"}
    server = {"name": "s", "flavorRef": "1", "imageRef": image, "networks": [network, {"uuid": network_id}]}
    server_id = as_member.at("2.42").post(SERVERS, json={"server": server}).json["server"]["id"]
    host.work()
    path = f"{SERVERS}/{server_id}/os-interface"
    body = {"interfaceAttachment": {"net_id": network_id, "tag": "late"}}
    answer = as_member.at("2.70").post(path, json=body)
    assert answer.json["interfaceAttachment"]["tag"] == "late"
    host.work()
    listed = as_member.at("2.70").get(path).json["interfaceAttachments"]
    tagged = {one["tag"]: one for one in listed}
    assert tagged.keys() == {"first", None, "late"}
    spec = host.hypervisor.machines[server_id].spec
    told = meta_data(spec, {tagged["first"]["port_id"]: 0})["devices"]
    first = {"type": "nic", "bus": "pci", "address": "0000:01:00.0", "mac": tagged["first"]["mac_addr"]}
    late = {"type": "nic", "bus": "pci", "mac": tagged["late"]["mac_addr"]}
    assert {**first, "tags": ["first"]} in told
    assert {**late, "tags": ["late"]} in told, "metadata lists the interface before it is attached"
    assert len(told) == 2
    assert as_member.delete(f"{path}/{tagged['late']['port_id']}").status_code == 202
    host.work()
    assert len(meta_data(host.hypervisor.machines[server_id].spec, {})["devices"]) == 1


def test_existing_port_is_kept_when_its_interface_is_detached(
    as_member: Api, make_server: MakeServer, host: Host
) -> None:
    network_id = as_member.get("/network/v2.0/networks?name=public").json["networks"][0]["id"]
    port = as_member.post("/network/v2.0/ports", json={"port": {"network_id": network_id}}).json["port"]
    server_id = make_server()
    path = f"{SERVERS}/{server_id}/os-interface"
    body = {"interfaceAttachment": {"port_id": port["id"]}}
    assert as_member.post(path, json=body).status_code == 200
    host.work()
    assert as_member.post(path, json=body).status_code == 400, "the port is in use"
    assert as_member.delete(f"{path}/{port['id']}").status_code == 202
    host.work()
    left = as_member.get(f"/network/v2.0/ports/{port['id']}").json["port"]
    assert (left["device_id"], left["status"]) == ("", "DOWN")


def test_an_interface_that_cannot_be_plugged_in_is_given_back(
    as_member: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    host.hypervisor.fail_next("ensure_nics", HypervisorError("There is no room for another interface."))
    path = f"{SERVERS}/{server_id}/os-interface"
    as_member.post(path, json={"interfaceAttachment": {}})
    host.work()
    assert len(as_member.get(path).json["interfaceAttachments"]) == 1
    assert shown(as_member, server_id)["status"] == "ACTIVE"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"net_id": "11111111-2222-4333-8444-555555555555"}, 404),
        ({"port_id": "11111111-2222-4333-8444-555555555555"}, 404),
        ({"net_id": "x", "port_id": "y"}, 400),
        ({"fixed_ips": [{"ip_address": "fd00::1"}]}, 400),
        ({"nonsense": 1}, 400),
    ],
)
def test_invalid_interface_attachments_are_refused(
    as_member: Api, make_server: MakeServer, asked: Any, status: int
) -> None:
    answer = as_member.post(f"{SERVERS}/{make_server()}/os-interface", json={"interfaceAttachment": asked})
    assert answer.status_code == status, answer.text


# --- operators, locks, passwords, diagnostics -----------------------------------------------------------------------


def test_operators_reset_the_state_of_a_server(
    as_admin: Api, as_member: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    act(as_member, server_id, {"os-resetState": {"state": "error"}}, 403)
    act(as_admin, server_id, {"os-resetState": {"state": "error"}})
    assert shown(as_member, server_id)["status"] == "ERROR"
    act(as_member, server_id, {"reboot": {"type": "HARD"}})
    (operation,) = host.conductor.waiting()
    act(as_admin, server_id, {"os-resetState": {"state": "active"}})
    assert host.conductor.claim(operation) is None, "the pending operation is superseded"
    assert shown(as_member, server_id)["OS-EXT-STS:task_state"] is None
    act(as_admin, server_id, {"os-resetState": {"state": "nonsense"}}, 400)


def test_a_lock_has_a_reason_and_keeps_its_owner_out(
    as_admin: Api, as_member: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    act(as_admin.at("2.73"), server_id, {"lock": {"locked_reason": "evidence"}})
    assert as_member.at("2.73").get(f"{SERVERS}/{server_id}").json["server"]["locked_reason"] == "evidence"
    for body in ({"os-stop": None}, {"shelve": None}, {"forceDelete": None}, {"createImage": {"name": "x"}}):
        act(as_member, server_id, body, 409)
    assert as_member.delete(f"{SERVERS}/{server_id}").status_code == 409
    assert as_member.get("/image/v2/images?name=x").json["images"] == []
    act(as_member, server_id, {"unlock": None}, 403)
    act(as_admin, server_id, {"unlock": None})
    act(as_member, server_id, {"forceDelete": None})
    host.work()
    assert as_member.get(f"{SERVERS}/{server_id}").status_code == 404


def test_passwords_need_an_agent_and_nothing_is_left_to_restore(as_member: Api, make_server: MakeServer) -> None:
    server_id = make_server()
    answer = act(as_member, server_id, {"changePassword": {"adminPass": "new"}}, 409)
    assert answer.json["conflictingRequest"]["message"] == "QEMU guest agent is not enabled"
    act(as_member, server_id, {"restore": None}, 409)
    act(as_member, server_id, {"shelveOffload": None}, 403)


@pytest.mark.parametrize("version", ["2.1", "2.48"])
def test_diagnostics_are_for_admins(
    as_admin: Api, as_member: Api, make_server: MakeServer, host: Host, version: str
) -> None:
    server_id = make_server()
    path = f"{SERVERS}/{server_id}/diagnostics"
    assert as_member.at(version).get(path).status_code == 403
    answer = as_admin.at(version).get(path)
    assert answer.status_code == 200, answer.text
    assert answer.json.get("memory") == 131072 if version == "2.1" else answer.json["num_nics"] == 1
    act(as_member, server_id, {"os-stop": None})
    host.work()
    assert as_admin.at(version).get(path).status_code == 409


def test_a_crash_dump_interrupts_a_guest_that_runs(
    as_admin: Api, as_member: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    dump = {"trigger_crash_dump": None}
    act(as_member.at("2.16"), server_id, dump, 404)
    member = as_member.at("2.17")
    act(member, server_id, {"trigger_crash_dump": {}}, 400)
    act(member, server_id, dump)
    assert b"NMI received" in host.hypervisor.console_log(server_id)
    history = f"{SERVERS}/{server_id}/os-instance-actions"
    done = as_member.get(history).json["instanceActions"][0]
    assert (done["action"], done["message"]) == ("trigger_crash_dump", None)
    act(as_admin, server_id, {"lock": None})
    act(member, server_id, dump, 409)
    act(as_admin, server_id, {"unlock": None})

    host.hypervisor.fail_next("inject_nmi", HypervisorError("qemu refused: no such thing"))
    refused = act(member, server_id, dump, 409)
    assert refused.json["conflictingRequest"]["message"] == "qemu refused: no such thing"
    assert as_member.get(history).json["instanceActions"][0]["message"] == "Error"

    act(as_member, server_id, {"os-stop": None})
    host.work()
    refused = act(member, server_id, dump, 409)
    assert refused.json["conflictingRequest"]["message"] == (
        f"Cannot 'trigger_crash_dump' instance {server_id} while it is in vm_state stopped"
    )


def test_unsupported_actions_are_refused_with_a_message(as_admin: Api, as_member: Api, make_server: MakeServer) -> None:
    server_id = make_server()
    act(as_member, server_id, {"migrate": None}, 403)
    act(as_admin, server_id, {"migrate": None}, 400)  # no other host exists
    act(as_member, server_id, {"addSecurityGroup": {"name": "default"}}, 400)
    act(as_member, server_id, {"addSecurityGroup": {"name": "other"}}, 404)
    act(as_member, server_id, {"removeSecurityGroup": {"name": "default"}}, 400)


# --- deadlines ------------------------------------------------------------------------------------------------------


def test_overdue_operations_fail(as_member: Api, make_server: MakeServer, host: Host, clock: ManualClock) -> None:
    server_id = make_server()
    act(as_member, server_id, {"reboot": {"type": "HARD"}})
    (operation,) = host.conductor.waiting()
    stuck = host.conductor.claim(operation)
    assert stuck is not None
    agent = Agent(host.conductor, host.hypervisor, threads=1, grace_seconds=1.0)
    clock.advance(300)
    agent.reconcile()
    assert shown(as_member, server_id)["status"] == "HARD_REBOOT"
    clock.advance(120)
    agent.reconcile()
    failed = shown(as_member, server_id)
    assert failed["status"] == "ERROR"
    assert "did not finish within" in failed["fault"]["message"]
    assert host.hypervisor.interrupted == [server_id]
    host.conductor.finish(stuck, Outcome())
    assert shown(as_member, server_id)["status"] == "ERROR", "a late completion is discarded"
    assert as_member.delete(f"{SERVERS}/{server_id}").status_code == 204
    host.work()
    assert as_member.get(f"{SERVERS}/{server_id}").status_code == 404


def test_delete_interrupts_the_running_operation(as_member: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    act(as_member, server_id, {"os-stop": None})
    (operation,) = host.conductor.waiting()
    stopping = host.conductor.claim(operation)
    assert stopping is not None
    assert host.conductor.interrupted() == []
    assert as_member.delete(f"{SERVERS}/{server_id}").status_code == 204
    assert host.conductor.interrupted() == [server_id]
    (deleting,) = host.conductor.waiting()
    assert host.conductor.claim(deleting) is None, "operations of a server run one after the other"
    host.conductor.finish(stopping, carry_out(stopping, host.hypervisor, 1.0))
    host.work()
    assert as_member.get(f"{SERVERS}/{server_id}").status_code == 404


def test_released_operation_is_executed_again(as_member: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    act(as_member, server_id, {"os-stop": None})
    (operation,) = host.conductor.waiting()
    assert host.conductor.claim(operation) is not None
    host.conductor.release(operation)
    host.work()
    assert shown(as_member, server_id)["status"] == "SHUTOFF"


# --- additional disks -----------------------------------------------------------------------------------------------


def test_blank_disks_from_flavor_or_block_device_mapping(
    as_admin: Api, as_member: Api, make_server: MakeServer, host: Host, image: str
) -> None:
    flavor = {"id": "blank", "name": "blank", "vcpus": 1, "ram": 128, "disk": 1, "swap": 512}
    body = {"flavor": {**flavor, "OS-FLV-EXT-DATA:ephemeral": 4}}
    assert as_admin.post("/compute/v2.1/flavors", json=body).status_code == 200

    def disks(server_id: str) -> list[tuple[str, int, int]]:
        return [(one.name, one.size_gib, one.size_mib) for one in host.hypervisor.machines[server_id].spec.disks]

    usual = make_server(flavorRef="blank")
    assert disks(usual) == [("root", 1, 0), ("ephemeral0", 4, 0), ("swap", 0, 512)]
    root = {"source_type": "image", "destination_type": "local", "uuid": image, "boot_index": 0}
    blank = {"source_type": "blank", "destination_type": "local", "boot_index": -1}
    swap = {**blank, "guest_format": "swap", "volume_size": 256}
    asked = [{**root, "volume_size": 7}, {**blank, "volume_size": 1}, {**blank, "volume_size": 2}, swap]
    chosen = make_server(flavorRef="blank", block_device_mapping_v2=asked)
    # As in Nova, the root disk has the flavor's size; the requested volume_size is ignored.
    assert disks(chosen) == [("root", 1, 0), ("ephemeral0", 1, 0), ("ephemeral1", 2, 0), ("swap", 0, 256)]
    assert room(as_admin) == (2, 256, 2 * (1 + 4 + 1))
    act(as_member, chosen, {"rebuild": {"imageRef": image, "preserve_ephemeral": True}})
    (operation,) = host.conductor.waiting()
    work = host.conductor.claim(operation)
    assert work is not None
    assert work.arguments["keep"] == ["ephemeral0", "ephemeral1"]
    xfs = {**blank, "volume_size": 1, "guest_format": "xfs"}
    for wrong in (
        [root, {**blank, "volume_size": 5}],
        [root, {**swap, "volume_size": 1024}],
        [root, swap, swap],
        [root, xfs],
        [{**root, "tag": "first"}],
        [{**root, "boot_index": -1}],
        [{**root, "uuid": None}],
        [{**root, "volume_size": 0}],
        [root, {**blank, "uuid": image}],
    ):
        server = {"name": "x", "flavorRef": "blank", "imageRef": image, "block_device_mapping_v2": wrong}
        assert as_member.at("2.33").post(SERVERS, json={"server": server}).status_code == 400
    server = {"name": "x", "flavorRef": "blank", "block_device_mapping_v2": [root]}
    answer = as_member.post(SERVERS, json={"server": server})
    assert "Mapping image to local is not supported." in answer.json["badRequest"]["message"]
