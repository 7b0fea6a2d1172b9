"""Heartbeats of many hosts and repeated notifications of queued operations."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from compute_agent.tasks import carry_out
from compute_api.conductor.service import LocalConductor
from compute_api.hosts import hosts
from compute_api.models import Host as HostRow
from compute_api.operations import operations
from hypervisor.fake import FakeHypervisor
from tests.api.conftest import Api, Host

COMPUTE = "/compute/v2.1"


def states(api: Api) -> dict[str, str]:
    return {one["host"]: one["state"] for one in api.get(f"{COMPUTE}/os-services").json["services"]}


def test_heartbeats_of_many_hosts_are_recorded_at_once(
    as_admin: Api, host: Host, settings: Settings, database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        for name in ("one", "two", "three"):
            report = FakeHypervisor(name=name).describe()
            hosts.register(session, clock.now(), report, settings)
    clock.advance(31)
    now = clock.now()
    with database.transaction() as session:
        hosts.record_heartbeats(session, {"one": now, "two": now - timedelta(seconds=20), "nobody": now})
    assert states(as_admin) == {"fake-host": "down", "one": "up", "two": "up", "three": "down"}
    with database.transaction() as session:
        hosts.record_heartbeats(session, {"one": now - timedelta(seconds=25)})
        hosts.record_heartbeats(session, {})
        (one,) = (found for found in hosts.list_hosts(session) if found.name == "one")
        assert one.last_seen == now, "an older heartbeat does not replace a newer one"
    clock.advance(11)
    assert states(as_admin)["two"] == "down"


def test_hosts_are_notified_again_of_queued_operations_at_intervals(
    make_server: Callable[..., str], host: Host, database: Database, clock: ManualClock
) -> None:
    make_server(work=False, max_count=2)

    def stale() -> dict[str, list[int]]:
        with database.transaction() as session:
            return operations.take_stale_queued(session, clock.now())

    assert stale() == {}
    clock.advance(5)
    waiting = list(host.conductor.waiting())
    assert len(waiting) == 2
    assert stale() == {"fake-host": waiting}
    assert stale() == {}, "another process has sent the notification"
    clock.advance(5)
    host.conductor.claim(waiting[0])
    assert stale() == {"fake-host": waiting[1:]}
    clock.advance(26)
    assert stale() == {}, "hosts that are down are not notified"
    host.conductor.heartbeat()
    assert stale() == {"fake-host": waiting[1:]}
    host.work()
    clock.advance(6)
    assert stale() == {}


def test_deleted_host_loses_its_heartbeat(host: Host, database: Database) -> None:
    with database.transaction() as session:
        session.delete(hosts.find(session, "fake-host"))
    host.conductor.register(host.hypervisor.describe())
    with database.reading() as session:
        assert session.query(HostRow).count() == 1


def test_local_conductor_notifies_the_next_host_of_a_migration(
    as_admin: Api,
    make_server: Callable[..., str],
    host: Host,
    database: Database,
    clock: ManualClock,
    settings: Settings,
) -> None:
    told: list[str] = []
    conductors = {
        name: LocalConductor(
            database, clock, replace(settings, host_name=name), notify=lambda name, _operations: told.append(name)
        )
        for name in ("fake-host", "other-host")
    }
    hypervisors = {"fake-host": host.hypervisor, "other-host": FakeHypervisor(name="other-host")}
    conductors["other-host"].register(hypervisors["other-host"].describe())
    server_id = make_server()
    path = f"{COMPUTE}/servers/{server_id}/action"
    assert as_admin.at("2.56").post(path, json={"migrate": {"host": "other-host"}}).status_code == 202
    (first,) = [name for name, conductor in conductors.items() if conductor.waiting()]
    told.append(first)
    for name in told:  # each completion notifies the next host
        for operation_id in conductors[name].waiting():
            work = conductors[name].claim(operation_id)
            assert work is not None
            conductors[name].finish(work, carry_out(work, hypervisors[name], 1.0))
    assert as_admin.get(f"{COMPUTE}/servers/{server_id}").json["server"]["status"] == "VERIFY_RESIZE"
    assert {"fake-host", "other-host"} <= set(told)
