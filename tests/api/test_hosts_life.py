"""Scheduling on two hosts: placement, retry of failed builds, hosts that go down and return."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from compute_agent.agent import Agent
from compute_api.conductor.service import LocalConductor
from compute_api.models import Host as HostRow
from compute_api.operations import reaper
from hypervisor.api.errors import LaunchFailed
from hypervisor.api.spec import MachineState
from hypervisor.fake import FakeHypervisor
from tests.api.conftest import Api, Host

COMPUTE = "/compute/v2.1"
GIB = 1024


@pytest.fixture
def other(host: Host, database: Database, clock: ManualClock, settings: Settings) -> Host:
    """A second host with less memory than the first, so that the scheduler prefers the first."""
    return second(database, clock, settings, "other-host", memory_mib=16 * GIB)


def second(database: Database, clock: ManualClock, settings: Settings, name: str, **sizes: int) -> Host:
    conductor = LocalConductor(database, clock, replace(settings, host_name=name))
    made = Host(FakeHypervisor(name=name, **sizes), conductor)
    conductor.register(made.hypervisor.describe())
    return made


def shown(api: Api, server_id: str) -> dict[str, Any]:
    found: dict[str, Any] = api.at("2.96").get(f"{COMPUTE}/servers/{server_id}").json["server"]
    return found


def find_host(api: Api, server_id: str) -> str | None:
    name: str | None = shown(api, server_id)["OS-EXT-SRV-ATTR:host"]
    return name


def claimed_memory(database: Database) -> dict[str, int]:
    """Return the claimed memory of each host in MiB."""
    with database.reading() as session:
        return {host.name: host.memory_mib_used for host in session.query(HostRow)}


def sweep(database: Database, clock: ManualClock) -> int:
    return reaper.reap(database, clock.now(), 60.0)


def test_failed_build_is_retried_on_another_host(
    as_admin: Api,
    as_member: Api,
    make_server: Callable[..., str],
    host: Host,
    other: Host,
    database: Database,
) -> None:
    host.hypervisor.fail_next("ensure_running", LaunchFailed("The disk is full."))
    server_id = make_server(work=False)
    assert find_host(as_admin, server_id) == "fake-host"
    (before,) = as_admin.get(f"/network/v2.0/ports?device_id={server_id}").json["ports"]
    host.work()
    found = shown(as_admin, server_id)
    assert (found["status"], found["OS-EXT-STS:task_state"]) == ("BUILD", "spawning")
    other.work()
    found = shown(as_admin, server_id)
    assert (found["status"], found["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", "other-host")
    assert "fault" not in found
    assert claimed_memory(database) == {"fake-host": 0, "other-host": 128}
    (port,) = as_admin.get(f"/network/v2.0/ports?device_id={server_id}").json["ports"]
    assert port["binding:host_id"] == "other-host"
    assert (port["id"], port["fixed_ips"]) == (before["id"], before["fixed_ips"])

    (action,) = as_admin.at("2.84").get(f"{COMPUTE}/servers/{server_id}/os-instance-actions").json["instanceActions"]
    assert action["message"] is None
    path = f"{COMPUTE}/servers/{server_id}/os-instance-actions/{action['request_id']}"
    events = as_admin.at("2.84").get(path).json["instanceAction"]["events"]
    assert [(event["host"], event["result"], event["details"]) for event in events] == [
        ("other-host", "Success", None),
        ("fake-host", "Error", "The disk is full."),
    ]

    host.hypervisor.ensure_running(other.hypervisor.machines[server_id].spec)
    host.reconcile()
    assert server_id not in host.hypervisor.machines, "the former host removes its machine"
    other.reconcile()
    host.reconcile()
    assert other.hypervisor.machines[server_id].state is MachineState.RUNNING
    assert shown(as_member, server_id)["status"] == "ACTIVE"


def test_three_hosts_are_tried_and_their_reasons_kept(
    as_admin: Api,
    make_server: Callable[..., str],
    host: Host,
    other: Host,
    database: Database,
    clock: ManualClock,
    settings: Settings,
) -> None:
    third = second(database, clock, settings, "third-host", memory_mib=8 * GIB)
    second(database, clock, settings, "fourth-host", memory_mib=4 * GIB)
    for number, one in enumerate((host, other, third)):
        one.hypervisor.fail_next("ensure_running", LaunchFailed(f"Reason {number}."))
    server_id = make_server(work=False)
    for one in (host, other, third):
        one.work()
    found = shown(as_admin, server_id)
    assert (found["status"], found["OS-EXT-STS:task_state"]) == ("ERROR", None)
    assert found["fault"]["message"].startswith("Exceeded maximum number of retries. ")
    for number, name in enumerate(("fake-host", "other-host", "third-host")):
        assert f"{name}: Reason {number}." in found["fault"]["details"]
    as_admin.delete(f"{COMPUTE}/servers/{server_id}")
    third.work()
    assert set(claimed_memory(database).values()) == {0}


def test_fault_lists_the_reason_of_every_host(
    as_admin: Api, make_server: Callable[..., str], host: Host, other: Host, database: Database
) -> None:
    path = f"{COMPUTE}/os-services"
    as_admin.put(f"{path}/disable", json={"host": "other-host", "binary": "nova-compute"})
    host.hypervisor.fail_next("ensure_running", LaunchFailed("The disk is full."))
    found = shown(as_admin, make_server())
    assert found["status"] == "ERROR"
    assert found["fault"]["message"] == (
        "No valid host was found. fake-host: The disk is full.; other-host: it is disabled."
    )
    assert claimed_memory(database) == {"fake-host": 128, "other-host": 0}


def test_a_fault_names_a_few_of_many_hosts(
    as_admin: Api,
    make_server: Callable[..., str],
    host: Host,
    other: Host,
    database: Database,
    clock: ManualClock,
    settings: Settings,
) -> None:
    for number in range(10):
        second(database, clock, settings, f"small-{number}", memory_mib=1 * GIB)
        second(database, clock, settings, f"odd-{number}", memory_mib=2 * GIB + number)
    for name in ("fake-host", "other-host"):
        as_admin.put(f"{COMPUTE}/os-services/disable", json={"host": name, "binary": "nova-compute"})
    found = shown(as_admin, make_server(flavorRef="4"))
    message = found["fault"]["details"]
    assert message.startswith("No valid host was found. fake-host, other-host: it is disabled; ")
    assert "small-0, small-1, small-2 and 7 others: 8192 MiB of memory wanted, " in message
    assert message.endswith("; 8 other hosts: other reasons.")
    assert len(message) < 500


def test_server_with_a_requested_host_is_not_rescheduled(
    as_admin: Api, image: str, host: Host, other: Host, database: Database
) -> None:
    body = {"name": "x", "imageRef": image, "flavorRef": "1", "networks": "none"}
    host.hypervisor.fail_next("ensure_running", LaunchFailed("The disk is full."))
    for field in ({"availability_zone": "nova:fake-host"}, {"host": "fake-host"}):
        made = as_admin.at("2.74").post(f"{COMPUTE}/servers", json={"server": body | field}).json["server"]
        host.work()
        assert find_host(as_admin, made["id"]) == "fake-host"
        found = shown(as_admin, made["id"])
        assert found["status"] == ("ERROR" if "availability_zone" in field else "ACTIVE")
    refused = as_admin.at("2.74").post(f"{COMPUTE}/servers", json={"server": body | {"host": "nobody"}})
    assert (refused.status_code, refused.json["badRequest"]["message"]) == (
        400,
        "Compute host nobody could not be found.",
    )
    assert as_admin.at("2.74").post(f"{COMPUTE}/servers", json={"server": body | {"hypervisor_hostname": "other-host"}})
    other.work()
    assert len(other.hypervisor.machines) == 1


def test_unshelving_tries_another_host_too(
    as_admin: Api, as_member: Api, make_server: Callable[..., str], host: Host, other: Host, database: Database
) -> None:
    server_id = make_server()
    path = f"{COMPUTE}/servers/{server_id}/action"
    as_member.post(path, json={"shelve": None})
    host.work()
    assert shown(as_admin, server_id)["status"] == "SHELVED_OFFLOADED"
    host.hypervisor.fail_next("ensure_running", LaunchFailed("The disk is full."))
    assert as_member.post(path, json={"unshelve": None}).status_code == 202
    host.work()
    other.work()
    found = shown(as_admin, server_id)
    assert (found["status"], found["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", "other-host")
    assert claimed_memory(database) == {"fake-host": 0, "other-host": 128}


def test_queued_builds_are_rescheduled_when_their_host_goes_down(
    as_admin: Api, make_server: Callable[..., str], host: Host, other: Host, database: Database, clock: ManualClock
) -> None:
    server_id = make_server(work=False)
    (waiting,) = host.conductor.waiting()
    assert sweep(database, clock) == 0
    clock.advance(31)
    assert sweep(database, clock) == 0, "no other host is up"
    assert find_host(as_admin, server_id) == "fake-host"
    other.conductor.heartbeat()
    assert sweep(database, clock) == 1
    assert host.conductor.claim(waiting) is None, "the operation was rescheduled"
    other.work()
    found = shown(as_admin, server_id)
    assert (found["status"], found["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", "other-host")
    assert claimed_memory(database) == {"fake-host": 0, "other-host": 128}
    assert sweep(database, clock) == 0


def test_running_operations_of_a_host_that_is_down_fail_when_overdue(
    log_in: Callable[[str], Api],
    make_server: Callable[..., str],
    host: Host,
    other: Host,
    database: Database,
    clock: ManualClock,
) -> None:
    server_id = make_server(work=False)
    (waiting,) = host.conductor.waiting()
    work = host.conductor.claim(waiting)
    assert work is not None
    clock.advance(31)
    other.conductor.heartbeat()
    assert sweep(database, clock) == 0, "the host may still run the machine"
    clock.advance(3700)
    assert sweep(database, clock) == 1
    found = shown(log_in("admin"), server_id)
    assert (found["status"], found["OS-EXT-STS:task_state"]) == ("ERROR", None)
    assert found["fault"]["message"] == "The host did not finish within 3660 seconds."


def test_operations_of_a_lost_host_fail_after_their_deadline(
    as_admin: Api, as_member: Api, make_server: Callable[..., str], host: Host, database: Database, clock: ManualClock
) -> None:
    server_id = make_server()
    as_member.post(f"{COMPUTE}/servers/{server_id}/action", json={"os-stop": None})
    clock.advance(100)
    assert sweep(database, clock) == 0
    clock.advance(300)
    assert sweep(database, clock) == 1
    found = shown(as_admin, server_id)
    assert (found["status"], found["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    actions = as_admin.at("2.84").get(f"{COMPUTE}/servers/{server_id}/os-instance-actions").json["instanceActions"]
    assert actions[0]["message"] == "Error"


def test_deletes_on_a_host_that_is_down_end_at_once(
    as_admin: Api, as_member: Api, make_server: Callable[..., str], host: Host, database: Database, clock: ManualClock
) -> None:
    asked_before, asked_after = make_server(), make_server()
    as_member.delete(f"{COMPUTE}/servers/{asked_before}")
    assert shown(as_admin, asked_before)["OS-EXT-STS:task_state"] == "deleting"
    clock.advance(31)
    assert as_member.delete(f"{COMPUTE}/servers/{asked_after}").status_code == 204
    assert as_member.get(f"{COMPUTE}/servers/{asked_after}").status_code == 404
    assert sweep(database, clock) == 1
    assert as_member.get(f"{COMPUTE}/servers/{asked_before}").status_code == 404
    assert claimed_memory(database) == {"fake-host": 0}
    assert as_member.get(f"{COMPUTE}/limits").json["limits"]["absolute"]["totalInstancesUsed"] == 0
    assert len(host.hypervisor.machines) == 2
    host.conductor.heartbeat()
    host.reconcile()
    assert host.hypervisor.machines == {}


def test_scheduler_hints_select_or_exclude_hosts(
    as_admin: Api, as_member: Api, make_server: Callable[..., str], image: str, host: Host, other: Host
) -> None:
    first = make_server()

    def create(**hints: Any) -> str:
        body = {"server": {"name": "x", "imageRef": image, "flavorRef": "1"}, "os:scheduler_hints": hints}
        answer = as_member.post(f"{COMPUTE}/servers", json=body)
        assert answer.status_code == 202, answer.text
        server_id: str = answer.json["server"]["id"]
        return server_id

    apart = create(different_host=[first])
    assert find_host(as_admin, apart) == "other-host"
    assert find_host(as_admin, create(same_host=apart)) == "other-host"
    nowhere = shown(as_admin, create(different_host=[first, apart]))
    assert nowhere["status"] == "ERROR"
    assert "the hint different_host names servers there" in nowhere["fault"]["message"]
    body = {"server": {"name": "x", "imageRef": image, "flavorRef": "1"}, "os:scheduler_hints": {"same_host": "x"}}
    assert as_member.post(f"{COMPUTE}/servers", json=body).status_code == 400


def test_hints_reveal_no_hosts_of_other_projects(
    as_admin: Api, as_member: Api, make_server: Callable[..., str], image: str, host: Host, other: Host
) -> None:
    """Servers of other projects count as missing: same_host matches no host, different_host excludes none."""
    as_member.patch(
        f"/image/v2/images/{image}",
        json=[{"op": "replace", "path": "/visibility", "value": "community"}],
        headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
    )
    foreign = make_server()
    hosts = {}
    for hint, named in (("same_host", foreign), ("same_host", str(uuid4())), ("different_host", foreign)):
        body = {"server": {"name": "x", "imageRef": image, "flavorRef": "1"}, "os:scheduler_hints": {hint: named}}
        answer = as_admin.post(f"{COMPUTE}/servers", json=body)
        assert answer.status_code == 202, answer.text
        hosts[hint, named == foreign] = find_host(as_admin, answer.json["server"]["id"])
    assert hosts["same_host", True] is hosts["same_host", False] is None
    assert hosts["different_host", True] == find_host(as_admin, make_server())


@pytest.mark.parametrize("key", ["aggregate_instance_extra_specs:disk", "disk"])
def test_flavor_extra_specs_match_aggregate_metadata(
    as_admin: Api, make_server: Callable[..., str], host: Host, other: Host, key: str
) -> None:
    made = as_admin.post(f"{COMPUTE}/os-aggregates", json={"aggregate": {"name": "fast"}}).json["aggregate"]
    action = f"{COMPUTE}/os-aggregates/{made['id']}/action"
    as_admin.post(action, json={"add_host": {"host": "other-host"}})
    flavor = {"name": "fast", "vcpus": 1, "ram": 128, "disk": 1, "id": "fast"}
    as_admin.post(f"{COMPUTE}/flavors", json={"flavor": flavor})
    as_admin.post(f"{COMPUTE}/flavors/fast/os-extra_specs", json={"extra_specs": {key: "<or> ssd <or> nvme"}})
    found = shown(as_admin, make_server(flavorRef="fast"))
    assert found["status"] == "ERROR"
    assert "other-host: its aggregates lack what the flavor asks for" in found["fault"]["message"]
    as_admin.post(action, json={"set_metadata": {"metadata": {"disk": "hdd, nvme"}}})
    server_id = make_server(flavorRef="fast", work=False)
    assert find_host(as_admin, server_id) == "other-host"
    assert find_host(as_admin, make_server(work=False)) == "fake-host"


def test_a_host_is_drained_and_removed(
    as_admin: Api,
    as_member: Api,
    make_server: Callable[..., str],
    host: Host,
    other: Host,
    database: Database,
    clock: ManualClock,
) -> None:
    api = as_admin.at("2.53")
    by_name = {one["host"]: one["id"] for one in api.get(f"{COMPUTE}/os-services").json["services"]}
    path = f"{COMPUTE}/os-services/{by_name['fake-host']}"
    server_id = make_server()
    assert api.put(path, json={"status": "disabled", "disabled_reason": "old"}).status_code == 200
    assert find_host(as_admin, make_server(work=False)) == "other-host"
    made = as_admin.post(f"{COMPUTE}/os-aggregates", json={"aggregate": {"name": "a"}}).json["aggregate"]
    aggregate = f"{COMPUTE}/os-aggregates/{made['id']}"
    as_admin.post(f"{aggregate}/action", json={"add_host": {"host": "fake-host"}})
    refused = api.delete(path)
    assert (refused.status_code, "hosting instances" in refused.text) == (409, True)
    as_member.post(f"{COMPUTE}/servers/{server_id}/action", json={"os-stop": None})
    host.work()
    assert shown(as_admin, server_id)["status"] == "SHUTOFF", "a disabled host still executes operations of its servers"
    as_member.delete(f"{COMPUTE}/servers/{server_id}")
    host.work()
    assert "would register again" in api.delete(path).text
    clock.advance(31)
    other.conductor.heartbeat()
    assert api.delete(path).status_code == 204
    assert [one["host"] for one in api.get(f"{COMPUTE}/os-services").json["services"]] == ["other-host"]
    assert as_admin.get(aggregate).json["aggregate"]["hosts"] == []
    assert api.delete(path).status_code == 404
    assert sweep(database, clock) == 0


def test_a_host_that_is_forced_down_is_down_at_once(
    as_admin: Api, make_server: Callable[..., str], host: Host, other: Host, database: Database, clock: ManualClock
) -> None:
    waiting = make_server(work=False)
    body = {"host": "fake-host", "binary": "nova-compute", "forced_down": True}
    assert as_admin.at("2.11").put(f"{COMPUTE}/os-services/force-down", json=body).status_code == 200
    assert find_host(as_admin, make_server(work=False)) == "other-host"
    assert other.work() == 1
    assert sweep(database, clock) == 1
    assert find_host(as_admin, waiting) == "other-host"


@contextmanager
def run_agents(*hosts: Host) -> Iterator[None]:
    """Run an agent for each host in a thread."""
    agents = [Agent(host.conductor, host.hypervisor, threads=2, grace_seconds=1.0) for host in hosts]
    threads = []
    for agent in agents:
        agent.prepare()
        threads.append(threading.Thread(target=agent.run))
        threads[-1].start()
    try:
        yield
    finally:
        for agent in agents:
            agent.stop()
        for thread in threads:
            thread.join()


def wait_until(look: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not look():
        assert time.monotonic() < end, "timeout waiting for a condition"
        time.sleep(0.02)


def test_returning_host_keeps_its_servers_and_removes_moved_ones(
    as_admin: Api,
    as_member: Api,
    make_server: Callable[..., str],
    host: Host,
    other: Host,
    database: Database,
    clock: ManualClock,
) -> None:
    with run_agents(host):
        kept, shut_off, deleted = (make_server(work=False) for _ in range(3))
        wait_until(lambda: all(shown(as_admin, one)["status"] == "ACTIVE" for one in (kept, shut_off, deleted)))
    waiting = make_server(work=False)
    assert find_host(as_admin, waiting) == "fake-host"
    clock.advance(31)
    other.conductor.heartbeat()
    with run_agents(other):
        assert as_member.delete(f"{COMPUTE}/servers/{deleted}").status_code == 204
        assert sweep(database, clock) == 1
        wait_until(lambda: shown(as_admin, waiting)["status"] == "ACTIVE")
        # The host had started the build before it went down, without recording a completion.
        host.hypervisor.ensure_running(other.hypervisor.machines[waiting].spec)
        host.hypervisor.guest_powers_off(shut_off)
        with run_agents(host):
            wait_until(lambda: shown(as_admin, shut_off)["status"] == "SHUTOFF")
            assert sorted(host.hypervisor.machines) == sorted([kept, shut_off])
            assert list(other.hypervisor.machines) == [waiting]
            assert host.hypervisor.machines[kept].starts == 1
            as_member.post(f"{COMPUTE}/servers/{shut_off}/action", json={"os-start": None})
            wait_until(lambda: shown(as_admin, shut_off)["status"] == "ACTIVE")
    for server_id in (kept, shut_off, waiting):
        assert shown(as_member, server_id)["status"] == "ACTIVE"
    assert claimed_memory(database) == {"fake-host": 256, "other-host": 128}


def test_slow_reconciliation_does_not_delay_heartbeats(as_admin: Api, host: Host, clock: ManualClock) -> None:
    looks, go_on = threading.Event(), threading.Event()

    def before(method: str, _machine_id: str) -> None:
        if method == "evict_images":
            looks.set()
            assert go_on.wait(60)

    host.hypervisor.before = before
    agent = Agent(
        host.conductor, host.hypervisor, threads=1, grace_seconds=1.0, reconcile_seconds=0, heartbeat_seconds=0.05
    )
    agent.prepare()
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        assert looks.wait(60)
        clock.advance(31)
        wait_until(lambda: as_admin.get(f"{COMPUTE}/os-services").json["services"][0]["state"] == "up")
    finally:
        go_on.set()
        agent.stop()
        thread.join()
