"""Hosts with a full disk: server status for users, host status for operators."""

from collections.abc import Callable

from tests.api.conftest import Api, Host

COMPUTE = "/compute/v2.1"
MakeServer = Callable[..., str]


def shown(api: Api, server_id: str) -> tuple[str, int]:
    server = api.get(f"{COMPUTE}/servers/{server_id}").json["server"]
    return server["status"], server["OS-EXT-STS:power_state"]


def test_full_disk_pauses_the_server_with_a_failed_action(as_member: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    actions = f"{COMPUTE}/servers/{server_id}/os-instance-actions"
    host.hypervisor.fill_disk(server_id)
    host.reconcile()
    assert shown(as_member, server_id) == ("PAUSED", 3)
    (pause, _) = as_member.get(actions).json["instanceActions"]
    assert (pause["action"], pause["message"]) == ("pause", "Error")
    shown_action = as_member.at("2.84").get(f"{actions}/{pause['request_id']}").json["instanceAction"]
    assert shown_action["events"][0]["details"].startswith("The host's disk is full.")
    host.reconcile()
    assert len(as_member.get(actions).json["instanceActions"]) == 2
    host.hypervisor.free_disk(server_id)
    host.reconcile()
    assert shown(as_member, server_id) == ("ACTIVE", 1)


def test_a_rescued_server_stays_so(as_member: Api, make_server: MakeServer, host: Host) -> None:
    server_id = make_server()
    as_member.post(f"{COMPUTE}/servers/{server_id}/action", json={"rescue": None})
    host.work()
    host.hypervisor.fill_disk(server_id)
    host.reconcile()
    assert shown(as_member, server_id) == ("RESCUE", 3)
    host.hypervisor.free_disk(server_id)
    host.reconcile()
    assert shown(as_member, server_id) == ("RESCUE", 1)


def test_a_full_host_gets_no_new_servers(as_member: Api, as_admin: Api, make_server: MakeServer, host: Host) -> None:
    old = make_server()
    host.hypervisor.fill_disk(old)
    host.conductor.register(host.hypervisor.describe())
    new = as_member.get(f"{COMPUTE}/servers/{make_server()}").json["server"]
    assert new["fault"]["message"] == "No valid host was found. fake-host: its disk is almost full."
    (hypervisor,) = as_admin.at("2.53").get(f"{COMPUTE}/os-hypervisors/detail").json["hypervisors"]
    assert hypervisor["disk_available_least"] == 0
    host.hypervisor.free_disk(old)
    host.conductor.register(host.hypervisor.describe())
    assert shown(as_member, make_server()) == ("ACTIVE", 1)
