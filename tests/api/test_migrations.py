"""Live migration, cold migration, resize and evacuation through the API, and their failures."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from compute_agent.tasks import carry_out
from compute_api.conductor.service import LocalConductor
from compute_api.models import Host as HostRow
from compute_api.models import Migration, Operation, ProjectUsage
from compute_api.operations import reaper
from compute_api.rpc.messages import Outcome
from hypervisor.api.errors import HypervisorError
from hypervisor.api.migration import MigrationProgress
from hypervisor.api.spec import MachineState
from hypervisor.fake import FakeHypervisor
from tests.api.conftest import Api, Host

COMPUTE = "/compute/v2.1"
MakeServer = Callable[..., str]


@pytest.fixture
def other(host: Host, database: Database, clock: ManualClock, settings: Settings) -> Host:
    """A second host, with less memory than the first."""
    conductor = LocalConductor(database, clock, replace(settings, host_name="other-host"))
    made = Host(FakeHypervisor(name="other-host", memory_mib=16_384), conductor)
    conductor.register(made.hypervisor.describe())
    return made


def shown(api: Api, server_id: str) -> dict[str, Any]:
    found: dict[str, Any] = api.at("2.96").get(f"{COMPUTE}/servers/{server_id}").json["server"]
    return found


def read_state(api: Api, server_id: str) -> tuple[str, str | None, str]:
    """Return status, task state and host."""
    found = shown(api, server_id)
    return found["status"], found["OS-EXT-STS:task_state"], found["OS-EXT-SRV-ATTR:host"]


def act(api: Api, server_id: str, body: dict[str, Any], status: int = 202, version: str = "2.96") -> Any:
    answer = api.at(version).post(f"{COMPUTE}/servers/{server_id}/action", json=body)
    assert answer.status_code == status, answer.text
    return answer


def migrations(api: Api, version: str = "2.80", **query: str) -> list[dict[str, Any]]:
    answer = api.at(version).get(f"{COMPUTE}/os-migrations", query_string=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json["migrations"]
    return found


def live(host: str | None = None) -> dict[str, Any]:
    return {"os-migrateLive": {"host": host, "block_migration": "auto"}}


def claimed_memory(database: Database) -> dict[str, int]:
    """Return the claimed memory of each host and of the project's quota in MiB."""
    with database.reading() as session:
        taken = {host.name: host.memory_mib_used for host in session.query(HostRow)}
        return {**taken, "quota": sum(one.ram for one in session.query(ProjectUsage))}


def secrets_left(database: Database) -> list[object]:
    with database.reading() as session:
        kept = [one.exchange for one in session.query(Migration)]
        kept += [one.arguments.get("plan") for one in session.query(Operation)]
    return [one for one in kept if one]


def work(*hosts: Host) -> None:
    """Execute operations on all hosts until none is queued, with reconciliation in between."""
    while sum(host.work() for host in hosts):
        for host in hosts:
            host.reconcile()


def step(host: Host, outcome: Outcome | None = None) -> str:
    """Execute the only queued operation and return its task."""
    (operation_id,) = host.conductor.waiting()
    one = host.conductor.claim(operation_id)
    assert one is not None
    host.conductor.finish(one, outcome or carry_out(one, host.hypervisor, 1.0))
    return one.task


def test_live_migration_moves_a_running_server(
    as_admin: Api, as_member: Api, make_server: MakeServer, host: Host, other: Host, database: Database
) -> None:
    server_id = make_server()
    host.hypervisor.machines[server_id].disk = b"written"
    (before,) = as_admin.get(f"/network/v2.0/ports?device_id={server_id}").json["ports"]
    act(as_member, server_id, live(), 403)
    act(as_admin, server_id, live())
    assert read_state(as_admin, server_id) == ("MIGRATING", "migrating", "fake-host")
    assert claimed_memory(database) == {"fake-host": 128, "other-host": 128, "quota": 128}
    act(as_member, server_id, {"os-stop": None}, 409)

    assert step(host) == "migration_offer"
    assert step(other) == "migration_prepare"
    for one in (host, other):
        one.reconcile()
    (one,) = migrations(as_admin, status="running")
    path = f"{COMPUTE}/servers/{server_id}/migrations"
    assert one["links"][0]["href"].endswith(f"{path}/{one['id']}")
    host.hypervisor.current_progress = MigrationProgress(memory_total=100, memory_processed=30, memory_remaining=70)
    (listed,) = as_admin.at("2.80").get(path).json["migrations"]
    assert (listed["memory_total_bytes"], listed["memory_remaining_bytes"], listed["status"]) == (100, 70, "running")
    assert as_admin.at("2.80").get(f"{path}/{one['id']}").json["migration"] == listed
    assert as_admin.at("2.22").post(f"{path}/{one['id']}/action", json={"force_complete": None}).status_code == 202
    assert ("force_migration_completion", server_id) in host.hypervisor.calls
    assert step(host) == "migration_send"
    for each in (host, other):
        each.reconcile()
    assert other.hypervisor.machines[server_id].state is not MachineState.RUNNING
    work(host, other)

    assert read_state(as_admin, server_id) == ("ACTIVE", None, "other-host")
    assert server_id not in host.hypervisor.machines
    assert other.hypervisor.machines[server_id].disk == b"written"
    assert other.hypervisor.machines[server_id].starts == 1
    (port,) = as_admin.get(f"/network/v2.0/ports?device_id={server_id}").json["ports"]
    assert (port["binding:host_id"], port["fixed_ips"]) == ("other-host", before["fixed_ips"])
    assert claimed_memory(database) == {"fake-host": 0, "other-host": 128, "quota": 128}
    (one,) = migrations(as_admin)
    assert (one["status"], one["migration_type"]) == ("completed", "live-migration")
    assert (one["source_compute"], one["dest_compute"], one["dest_host"]) == ("fake-host", "other-host", "::1")
    assert secrets_left(database) == []
    assert as_admin.at("2.80").get(path).json["migrations"] == []
    assert as_admin.at("2.80").get(f"{path}/{one['id']}").status_code == 404
    (action, _) = as_member.get(f"{COMPUTE}/servers/{server_id}/os-instance-actions").json["instanceActions"]
    assert (action["action"], action["message"]) == ("live-migration", None)

    as_member.delete(f"{COMPUTE}/servers/{server_id}")
    work(host, other)
    assert claimed_memory(database) == {"fake-host": 0, "other-host": 0, "quota": 0}


@pytest.mark.parametrize("method", ["begin_migration", "prepare_migration", "perform_migration", "finish_migration"])
def test_a_live_migration_that_fails_leaves_the_server_as_it_was(
    method: str,
    as_admin: Api,
    as_member: Api,
    make_server: MakeServer,
    host: Host,
    other: Host,
    database: Database,
) -> None:
    server_id = make_server()
    failing = host if method in ("begin_migration", "perform_migration") else other
    failing.hypervisor.fail_next(method, HypervisorError("Something is in the way."))
    act(as_admin, server_id, live("other-host"))
    work(host, other)
    assert read_state(as_admin, server_id) == ("ACTIVE", None, "fake-host")
    assert host.hypervisor.machines[server_id].state is MachineState.RUNNING
    assert server_id not in other.hypervisor.machines
    assert claimed_memory(database) == {"fake-host": 128, "other-host": 0, "quota": 128}
    (one,) = migrations(as_admin)
    assert one["status"] == "error"
    assert secrets_left(database) == []
    (action, _) = as_member.get(f"{COMPUTE}/servers/{server_id}/os-instance-actions").json["instanceActions"]
    assert action["message"] == "Error"
    act(as_admin, server_id, live())
    work(host, other)
    assert read_state(as_admin, server_id) == ("ACTIVE", None, "other-host")


def test_a_live_migration_is_aborted(
    as_admin: Api, make_server: MakeServer, host: Host, other: Host, database: Database
) -> None:
    server_id = make_server()
    act(as_admin, server_id, live())
    path = f"{COMPUTE}/servers/{server_id}/migrations/{migrations(as_admin)[0]['id']}"
    assert as_admin.at("2.24").delete(path).status_code == 400, "microversion 2.65 added the abort of queued migrations"
    assert as_admin.at("2.65").delete(path).status_code == 202
    work(host, other)
    assert migrations(as_admin)[0]["status"] == "cancelled"
    assert read_state(as_admin, server_id) == ("ACTIVE", None, "fake-host")

    act(as_admin, server_id, live())
    path = f"{COMPUTE}/servers/{server_id}/migrations/{migrations(as_admin)[0]['id']}"
    step(host)
    step(other)
    assert as_admin.at("2.24").delete(path).status_code == 202
    assert host.hypervisor.interrupted == [server_id]
    host.hypervisor.fail_next(
        "perform_migration", HypervisorError("The migration was cancelled by a more urgent operation.")
    )
    work(host, other)
    assert migrations(as_admin)[0]["status"] == "cancelled"
    assert read_state(as_admin, server_id) == ("ACTIVE", None, "fake-host")
    assert claimed_memory(database) == {"fake-host": 128, "other-host": 0, "quota": 128}


def test_a_deleted_server_moves_nowhere(
    as_admin: Api, as_member: Api, make_server: MakeServer, host: Host, other: Host, database: Database
) -> None:
    for steps in range(5):
        server_id = make_server()
        act(as_admin, server_id, live())
        for one in (host, other, host, other)[:steps]:
            step(one)
        as_member.delete(f"{COMPUTE}/servers/{server_id}")
        work(host, other)
        for one in (host, other):
            one.reconcile()
        assert host.hypervisor.machines == other.hypervisor.machines == {}
        assert as_admin.get(f"{COMPUTE}/servers/{server_id}").status_code == 404
        assert claimed_memory(database) == {"fake-host": 0, "other-host": 0, "quota": 0}
        assert secrets_left(database) == []


def test_destination_lost_before_the_transfer_cancels_the_migration(
    as_admin: Api,
    make_server: MakeServer,
    host: Host,
    other: Host,
    database: Database,
    clock: ManualClock,
    log_in: Callable[[str], Api],
) -> None:
    server_id = make_server()
    act(as_admin, server_id, live())
    assert step(host) == "migration_offer"
    clock.advance(3600 + 120)
    host.conductor.heartbeat()
    assert reaper.reap(database, clock.now(), 60.0)
    work(host)
    assert read_state(log_in("admin"), server_id) == ("ACTIVE", None, "fake-host")
    assert claimed_memory(database)["other-host"] == 0


def test_a_server_is_migrated_cold_and_confirmed_or_taken_back(
    as_admin: Api, as_member: Api, make_server: MakeServer, host: Host, other: Host, database: Database
) -> None:
    server_id = make_server()
    host.hypervisor.machines[server_id].disk = b"written"
    act(as_admin, server_id, {"migrate": None})
    assert read_state(as_admin, server_id) == ("RESIZE", "resize_migrating", "fake-host")
    work(host, other)
    assert read_state(as_admin, server_id) == ("VERIFY_RESIZE", None, "other-host")
    assert host.hypervisor.machines[server_id].state is MachineState.SHUTOFF, (
        "the source keeps the machine for a revert"
    )
    assert other.hypervisor.machines[server_id].state is MachineState.RUNNING
    assert other.hypervisor.machines[server_id].disk == b"written"
    assert claimed_memory(database) == {"fake-host": 128, "other-host": 128, "quota": 128}

    act(as_member, server_id, {"revertResize": None})
    work(host, other)
    assert read_state(as_admin, server_id) == ("ACTIVE", None, "fake-host")
    assert host.hypervisor.machines[server_id].state is MachineState.RUNNING
    assert server_id not in other.hypervisor.machines
    assert claimed_memory(database) == {"fake-host": 128, "other-host": 0, "quota": 128}
    assert [one["status"] for one in migrations(as_admin)] == ["reverted"]

    act(as_member, server_id, {"os-stop": None})
    work(host)
    act(as_admin, server_id, {"migrate": {"host": "other-host"}})
    work(host, other)
    assert read_state(as_admin, server_id) == ("VERIFY_RESIZE", None, "other-host")
    assert other.hypervisor.machines[server_id].state is MachineState.SHUTOFF
    act(as_member, server_id, {"confirmResize": None}, 204)
    work(host, other)
    assert read_state(as_admin, server_id) == ("SHUTOFF", None, "other-host")
    assert server_id not in host.hypervisor.machines
    assert claimed_memory(database) == {"fake-host": 0, "other-host": 128, "quota": 128}
    assert [one["status"] for one in migrations(as_admin)] == ["confirmed", "reverted"]
    assert secrets_left(database) == []


def test_a_resize_that_its_host_has_no_room_for_goes_to_another(
    as_admin: Api, as_member: Api, make_server: MakeServer, host: Host, other: Host, database: Database
) -> None:
    server_id = make_server()
    act(as_admin, server_id, {"migrate": None})
    work(host, other)
    act(as_member, server_id, {"confirmResize": None}, 204)
    work(host, other)
    with database.transaction() as session:
        session.query(HostRow).filter_by(name="other-host").update({"memory_mib_limit": 256})
    act(as_member, server_id, {"resize": {"flavorRef": "2"}})
    work(host, other)
    assert read_state(as_admin, server_id) == ("VERIFY_RESIZE", None, "fake-host")
    assert host.hypervisor.machines[server_id].spec.memory_mib == 512
    assert claimed_memory(database) == {"fake-host": 512, "other-host": 128, "quota": 512}
    act(as_member, server_id, {"revertResize": None})
    work(host, other)
    assert read_state(as_admin, server_id) == ("ACTIVE", None, "other-host")
    assert other.hypervisor.machines[server_id].spec.memory_mib == 128
    assert claimed_memory(database) == {"fake-host": 0, "other-host": 128, "quota": 128}

    host.hypervisor.fail_next("prepare_migration", HypervisorError("no"))
    act(as_member, server_id, {"resize": {"flavorRef": "2"}})
    work(host, other)
    assert read_state(as_admin, server_id) == ("ACTIVE", None, "other-host")
    assert shown(as_admin, server_id)["flavor"]["ram"] == 128
    assert claimed_memory(database) == {"fake-host": 0, "other-host": 128, "quota": 128}

    act(as_member, server_id, {"resize": {"flavorRef": "2"}})
    work(host, other)
    as_member.delete(f"{COMPUTE}/servers/{server_id}")
    work(host, other)
    for one in (host, other):
        one.reconcile()
    assert host.hypervisor.machines == other.hypervisor.machines == {}
    assert claimed_memory(database) == {"fake-host": 0, "other-host": 0, "quota": 0}


def test_a_resize_on_its_own_host_is_in_the_list_of_migrations(
    as_admin: Api, as_member: Api, make_server: MakeServer, host: Host
) -> None:
    server_id = make_server()
    act(as_member, server_id, {"resize": {"flavorRef": "2"}})
    host.work()
    (one,) = migrations(as_admin, instance_uuid=server_id)
    assert (one["status"], one["migration_type"]) == ("finished", "resize")
    assert one["source_compute"] == one["dest_compute"] == "fake-host"
    assert one["old_instance_type_id"] != one["new_instance_type_id"]
    act(as_member, server_id, {"confirmResize": None}, 204)
    host.work()
    assert migrations(as_admin)[0]["status"] == "confirmed"
    assert host.hypervisor.machines[server_id].state is MachineState.RUNNING


def test_servers_of_a_host_that_is_down_are_evacuated(
    as_admin: Api,
    as_member: Api,
    make_server: MakeServer,
    host: Host,
    other: Host,
    database: Database,
    clock: ManualClock,
) -> None:
    server_id, second = make_server(), make_server("second")
    in_use = act(as_admin, server_id, {"evacuate": {}}, 400)
    assert in_use.json["badRequest"]["message"] == "Compute service of fake-host is still in use."
    clock.advance(31)
    other.conductor.heartbeat()
    act(as_member, server_id, {"evacuate": {}}, 403)
    act(as_admin, server_id, {"evacuate": {"host": "fake-host"}}, 400)
    act(as_admin, server_id, {"evacuate": {"onSharedStorage": True}}, 400, "2.13")
    answer = act(as_admin, server_id, {"evacuate": {"onSharedStorage": False}}, 200, "2.13")
    assert answer.json["adminPass"]
    assert read_state(as_admin, server_id) == ("REBUILD", "rebuilding", "other-host")
    assert act(as_admin, second, {"evacuate": {}}, 200, "2.95").data == b""
    other.work()
    assert read_state(as_admin, server_id) == ("ACTIVE", None, "other-host")
    assert read_state(as_admin, second) == ("SHUTOFF", None, "other-host")
    assert claimed_memory(database) == {"fake-host": 0, "other-host": 256, "quota": 256}
    assert {(one["migration_type"], one["status"]) for one in migrations(as_admin)} == {("evacuation", "done")}

    # The host returns: it removes its machine, so that the server never runs twice.
    host.conductor.heartbeat()
    host.work()
    host.reconcile()
    assert host.hypervisor.machines == {}
    assert other.hypervisor.machines[server_id].state is MachineState.RUNNING


def test_impossible_migrations_are_refused_with_novas_messages(
    as_admin: Api, as_member: Api, make_server: MakeServer, host: Host, clock: ManualClock
) -> None:
    server_id = make_server()
    for body, words in (
        (live("nowhere"), "Compute host nowhere could not be found."),
        (live("fake-host"), f"Unable to migrate instance ({server_id}) to current host (fake-host)."),
        (live(), "No valid host was found. fake-host: the server is there already."),
        ({"migrate": {"host": "fake-host"}}, "Cannot migrate to the host where the server exists."),
        ({"migrate": {"host": "nowhere"}}, "Compute host nowhere could not be found."),
        ({"migrate": None}, "No valid host was found. fake-host: the server is there already."),
    ):
        assert act(as_admin, server_id, body, 400).json["badRequest"]["message"] == words
    act(as_admin, server_id, {"os-migrateLive": {"host": None}}, 400)
    act(as_admin, server_id, {"os-migrateLive": {"host": None, "block_migration": False}}, 400)
    act(as_admin, server_id, {"os-migrateLive": {"host": None, "block_migration": "auto"}}, 400, "2.24")
    act(as_admin, server_id, {"os-migrateLive": {"host": None, "block_migration": "auto", "force": True}}, 400, "2.30")
    assert read_state(as_admin, server_id) == ("ACTIVE", None, "fake-host")
    act(as_member, server_id, {"os-stop": None})
    host.work()
    stopped = act(as_admin, server_id, live(), 409).json["conflictingRequest"]["message"]
    assert stopped == f"Cannot 'os-migrateLive' instance {server_id} while it is in vm_state stopped"
    clock.advance(31)
    down = act(as_admin, server_id, {"migrate": None}, 400).json["badRequest"]["message"]
    assert down == "Compute service of fake-host is unavailable at this time."
    assert migrations(as_admin) == []


def test_the_list_of_migrations_has_filters_and_pages(
    as_admin: Api, as_member: Api, make_server: MakeServer, host: Host, other: Host
) -> None:
    ids = [make_server(name) for name in ("one", "two", "three")]
    for server_id in ids:
        act(as_admin, server_id, live())
        work(host, other)
    assert [one["instance_uuid"] for one in migrations(as_admin)] == ids[::-1]
    assert [one["instance_uuid"] for one in migrations(as_admin, "2.1")] == ids
    assert [one["instance_uuid"] for one in migrations(as_admin, instance_uuid=ids[1])] == [ids[1]]
    assert migrations(as_admin, host="nowhere") == migrations(as_admin, status="error") == []
    first = as_admin.at("2.80").get(f"{COMPUTE}/os-migrations?limit=2").json
    assert len(first["migrations"]) == 2
    (after,) = first["migrations_links"]
    rest = as_admin.at("2.80").get(after["href"].split("localhost", 1)[-1]).json
    assert [one["instance_uuid"] for one in rest["migrations"]] == ids[:1]
    assert as_admin.at("2.80").get(f"{COMPUTE}/os-migrations?marker=nonsense").status_code == 400
    assert as_admin.at("2.59").get(f"{COMPUTE}/os-migrations?nonsense=1").status_code == 400
    assert as_member.get(f"{COMPUTE}/os-migrations").status_code == 403


def test_servers_on_shared_disks_keep_them_when_they_are_evacuated(
    as_admin: Api,
    make_server: MakeServer,
    host: Host,
    other: Host,
    app: Flask,
    database: Database,
    clock: ManualClock,
) -> None:
    parts = app.extensions["sixstack"]
    app.extensions["sixstack"] = replace(parts, settings=replace(parts.settings, shared_machines="/machines"))
    server_id = make_server()
    act(as_admin, server_id, live(), 400)
    act(as_admin, server_id, {"migrate": None}, 400)
    clock.advance(31)
    other.conductor.heartbeat()
    act(as_admin, server_id, {"evacuate": {"onSharedStorage": False}}, 400, "2.13")
    act(as_admin, server_id, {"evacuate": {"onSharedStorage": True, "adminPass": "x"}}, 400, "2.13")
    act(as_admin, server_id, {"evacuate": {"onSharedStorage": True}}, 200, "2.13")
    with database.reading() as session:
        (arguments,) = (one.arguments for one in session.query(Operation) if one.host == "other-host")
    assert arguments == {"keep": ["root"]}
    other.work()
    assert read_state(as_admin, server_id) == ("ACTIVE", None, "other-host")
