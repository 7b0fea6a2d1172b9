"""Removal of hosts and the servers of a lost host."""

from collections.abc import Callable

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from compute_api.operations import host_removal, reaper
from tests.api.conftest import Api, Host
from tests.api.test_hosts_life import COMPUTE, claimed_memory, second, shown
from tests.api.test_migrations import act


def test_a_host_that_a_migration_needs_is_not_deleted(
    as_admin: Api,
    as_member: Api,
    make_server: Callable[..., str],
    host: Host,
    database: Database,
    clock: ManualClock,
    settings: Settings,
) -> None:
    other = second(database, clock, settings, "other-host", memory_mib=16 * 1024)
    server_id = make_server()
    act(as_admin, server_id, {"migrate": None})
    while host.work() + other.work():
        pass
    assert shown(as_admin, server_id)["status"] == "VERIFY_RESIZE"
    clock.advance(31)
    services = as_admin.at("2.96").get(f"{COMPUTE}/os-services").json["services"]
    for service in services:
        refused = as_admin.at("2.96").delete(f"{COMPUTE}/os-services/{service['id']}")
        assert refused.status_code == 409, "one host has the server, the other one the disks for a revert"


def test_servers_of_a_lost_host_can_be_deleted_and_hold_nothing(
    as_admin: Api,
    as_member: Api,
    make_server: Callable[..., str],
    host: Host,
    database: Database,
    clock: ManualClock,
    settings: Settings,
) -> None:
    second(database, clock, settings, "other-host", memory_mib=16 * 1024)
    ran, rebooting, going, waiting = make_server(), make_server(), make_server(), make_server(work=False)
    as_member.post(f"{COMPUTE}/servers/{rebooting}/action", json={"reboot": {"type": "SOFT"}})
    as_member.delete(f"{COMPUTE}/servers/{going}")
    with database.transaction() as session:
        assert host_removal.abandon_servers(session, clock.now(), "fake-host") == 3
        host_removal.delete_record(session, "fake-host")
    assert as_member.get(f"{COMPUTE}/servers/{going}").status_code == 404
    for server_id in (ran, rebooting, waiting):
        found = shown(as_member, server_id)
        assert (found["status"], found["OS-EXT-STS:task_state"]) == ("ERROR", None)
        assert found["fault"]["message"].startswith("Host fake-host, which had the disks of this server, was removed")
        (port,) = as_member.get(f"/network/v2.0/ports?device_id={server_id}").json["ports"]
        assert port["status"] == "DOWN"
        assert as_member.post(f"{COMPUTE}/servers/{server_id}/action", json={"os-start": None}).status_code == 409
        assert as_member.delete(f"{COMPUTE}/servers/{server_id}").status_code == 204
    assert as_member.get(f"{COMPUTE}/servers").json["servers"] == []
    assert as_member.get(f"{COMPUTE}/limits").json["limits"]["absolute"]["totalInstancesUsed"] == 0
    assert claimed_memory(database) == {"other-host": 0}
    assert reaper.reap(database, clock.now(), 60.0) == 0
    host.conductor.register(host.hypervisor.describe())
    assert claimed_memory(database) == {"fake-host": 0, "other-host": 0}
    assert len(host.hypervisor.machines) == 3
    host.reconcile()
    assert host.hypervisor.machines == {}
