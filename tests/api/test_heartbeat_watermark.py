"""Heartbeat watermark: while heartbeats are not received, liveness is frozen and deadlines do not count."""

from collections.abc import Callable

import pytest

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from compute_api.hosts import hosts, liveness
from compute_api.models import Heartbeat
from compute_api.operations import operations, reaper
from hypervisor.fake import FakeHypervisor
from tests.api.conftest import Api, Host
from tests.api.test_hosts_life import COMPUTE, find_host, second, shown
from tests.api.test_hosts_liveness import states
from tests.api.test_migrations import act


class FakeConductor:
    """Records heartbeats of live hosts every ten seconds and advances the watermark every second."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self._database = database
        self._clock = clock

    def receive_heartbeats(self, *names: str, seconds: int) -> None:
        for number in range(1, seconds + 1):
            self._clock.advance(1)
            with self._database.transaction() as session:
                liveness.advance_watermark(session, self._clock.now())
                if number % 10 == 0:
                    hosts.record_heartbeats(session, dict.fromkeys(names, self._clock.now()))

    def sweep(self) -> int:
        return reaper.reap(self._database, self._clock.now(), 60.0)


@pytest.fixture
def conductor(host: Host, database: Database, clock: ManualClock, settings: Settings) -> FakeConductor:
    """A conductor that has received heartbeats of two hosts for over a minute, and no longer of a third."""
    second(database, clock, settings, "live-host", memory_mib=16 * 1024)
    second(database, clock, settings, "dead-host", memory_mib=16 * 1024)
    made = FakeConductor(database, clock)
    made.receive_heartbeats("fake-host", "live-host", seconds=70)
    return made


def test_liveness_is_frozen_while_no_heartbeats_are_received(
    as_admin: Api, conductor: FakeConductor, clock: ManualClock
) -> None:
    before = {"fake-host": "up", "live-host": "up", "dead-host": "down"}
    assert states(as_admin) == before
    for _ in range(6):
        clock.advance(100)
        assert states(as_admin) == before
    conductor.receive_heartbeats("live-host", seconds=5)
    assert states(as_admin) == before
    clock.advance(100)  # too short a time for every host to send a heartbeat
    conductor.receive_heartbeats("live-host", seconds=29)
    assert states(as_admin) == before
    conductor.receive_heartbeats("live-host", seconds=2)
    assert states(as_admin) == before | {"fake-host": "down"}
    conductor.receive_heartbeats("dead-host", "live-host", seconds=10)
    assert states(as_admin) == {"fake-host": "down", "live-host": "up", "dead-host": "up"}
    hypervisors = as_admin.get(f"{COMPUTE}/os-hypervisors").json["hypervisors"]
    assert {one["hypervisor_hostname"]: one["state"] for one in hypervisors} == states(as_admin)


def test_silent_host_is_down_after_30_s_across_conductor_restarts(
    as_admin: Api, conductor: FakeConductor, clock: ManualClock
) -> None:
    for _ in range(2):
        conductor.receive_heartbeats("live-host", seconds=10)
        clock.advance(8)
    assert states(as_admin) == {"fake-host": "down", "live-host": "up", "dead-host": "down"}


def test_servers_are_accepted_while_no_heartbeats_are_received(
    as_admin: Api,
    make_server: Callable[..., str],
    host: Host,
    conductor: FakeConductor,
    database: Database,
    clock: ManualClock,
) -> None:
    clock.advance(45)
    server_id = make_server(work=False)
    assert find_host(as_admin, server_id) == "fake-host"
    clock.advance(600)
    assert conductor.sweep() == 0
    assert shown(as_admin, server_id)["status"] == "BUILD"
    conductor.receive_heartbeats("fake-host", "live-host", seconds=11)
    with database.transaction() as session:
        assert list(operations.take_stale_queued(session, clock.now())) == ["fake-host"]
    host.work()
    assert shown(as_admin, server_id)["status"] == "ACTIVE"


def test_deadlines_do_not_count_right_after_a_gap(
    as_admin: Api, make_server: Callable[..., str], host: Host, conductor: FakeConductor, clock: ManualClock
) -> None:
    server_id = make_server()
    as_admin.post(f"{COMPUTE}/servers/{server_id}/action", json={"reboot": {"type": "HARD"}})
    (waiting,) = host.conductor.waiting()
    work = host.conductor.claim(waiting)
    assert work is not None
    clock.advance(1200)
    assert (conductor.sweep(), [*host.conductor.host_state().overdue]) == (0, [])
    conductor.receive_heartbeats("fake-host", seconds=50)
    assert (conductor.sweep(), [*host.conductor.host_state().overdue]) == (0, [])
    conductor.receive_heartbeats("fake-host", seconds=20)
    assert conductor.sweep() == 1, "the outcome has had time to be reported"
    assert shown(as_admin, server_id)["status"] == "ERROR"


def test_evacuation_is_refused_while_the_host_may_be_alive(
    as_admin: Api,
    make_server: Callable[..., str],
    host: Host,
    conductor: FakeConductor,
    database: Database,
    clock: ManualClock,
) -> None:
    server_id = make_server()
    conductor.receive_heartbeats("live-host", seconds=31)
    assert states(as_admin)["fake-host"] == "down"
    clock.advance(11)
    refused = act(as_admin, server_id, {"evacuate": {}}, 400)
    assert "still in use" in refused.json["badRequest"]["message"]
    conductor.receive_heartbeats("live-host", seconds=1)
    act(as_admin, server_id, {"evacuate": {}}, 200, "2.95")


def test_without_a_broker_hosts_write_their_own_heartbeats(
    as_admin: Api, conductor: FakeConductor, database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        liveness.remove_watermark(session)
    assert states(as_admin)["live-host"] == "up"
    clock.advance(31)
    assert set(states(as_admin).values()) == {"down"}


def test_heartbeat_writes_of_two_conductors_are_serialized(
    database: Database, clock: ManualClock, settings: Settings
) -> None:
    now = clock.now()
    with database.transaction() as session:
        hosts.register(session, now, FakeHypervisor(name="one").describe(), settings)
        liveness.advance_watermark(session, now)
    clock.advance(5)
    with database.transaction() as session:
        liveness.advance_watermark(session, clock.now())
    with database.transaction() as session:
        liveness.advance_watermark(session, now)  # the other conductor was slower
    with database.reading() as session:
        found = session.query(Heartbeat).one()
        assert hosts.is_up(hosts.find(session, "one"), liveness.down_before(session, clock.now()))
        assert found.last_seen == now
        assert liveness.is_watermark_current(session, clock.now())
