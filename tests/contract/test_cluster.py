"""A cluster of three hosts with real guests, two API processes, PostgreSQL and RabbitMQ (tests/cluster.py)."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from openstack import exceptions
from openstack.connection import Connection
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import tests.postgres
import tests.rabbitmq
from tests.cluster import HOSTS, Cluster, cluster
from tests.contract.conftest import Key, need_a_host, wait_until
from tests.contract.test_consoles import Stream, drain, web_socket
from tests.host.support import TINY_IMAGE

pytestmark = [pytest.mark.xdist_group("cluster"), pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def many(key: Key) -> Iterator[Cluster]:
    """A cluster with the image `tiny` and the admin's key pair `key`; removed completely afterwards."""
    need_a_host()
    if reason := tests.postgres.why_not() or tests.rabbitmq.why_not():
        pytest.skip(reason)
    with tests.rabbitmq.place() as place, cluster(place / "c") as made:
        with made.connect("sixstack-admin") as admin:
            formats = {"disk_format": "qcow2", "container_format": "bare"}
            admin.create_image("tiny", data=TINY_IMAGE.read_bytes(), visibility="public", wait=True, **formats)
            admin.create_keypair("key", key.public)
        yield made
    assert not [name for name in os.listdir("/run/netns") if name.startswith(made.wire.name)]
    assert all(made.guests(host) == [] for host in HOSTS)


@pytest.fixture
def admin(many: Cluster) -> Iterator[Connection]:
    """openstacksdk connection of the admin; deletes remaining servers afterwards."""
    with many.connect("sixstack-admin") as made:
        yield made
        for server in made.list_servers():
            made.compute.delete_server(server.id)
        wait_until(lambda: not made.list_servers())


def begin(admin: Connection, name: str, count: int = 1, **more: Any) -> None:
    """Request servers without waiting for them."""
    admin.compute.create_server(
        name=name,
        image_id=admin.get_image("tiny").id,
        flavor_id=admin.get_flavor("tiny").id,
        key_name="key",
        networks="auto",
        min_count=count,
        max_count=count,
        **more,
    )


def at_rest(admin: Connection, count: int) -> list[Any] | None:
    """Return the servers once there are `count` and each is ACTIVE or ERROR, else None."""
    servers = admin.list_servers()
    return servers if len(servers) == count and all(one.status in ("ACTIVE", "ERROR") for one in servers) else None


def all_active(admin: Connection) -> bool:
    """Return True when every server is ACTIVE; fail with the faults of the others."""
    wrong = {server.name: server.fault for server in admin.list_servers() if server.status != "ACTIVE"}
    assert wrong == {}
    return True


def test_servers_on_several_hosts_communicate_and_are_reachable(many: Cluster, admin: Connection, key: Key) -> None:
    begin(admin, "spread", 3)
    servers = wait_until(lambda: at_rest(admin, 3))
    assert {server.status for server in servers} == {"ACTIVE"}, [server.fault for server in servers]
    assert sorted(server.compute_host for server in servers) == list(HOSTS)
    for server in servers:
        assert len(many.guests(server.compute_host)) == 1
        many.lead_to(server.access_ipv6, server.compute_host)
    for server in servers:
        others = [other.access_ipv6 for other in servers if other is not server]
        key.ssh(server.access_ipv6, *(f"ping -6 -c 1 -W 20 {address} &&" for address in others), "true")
    with many.connect("sixstack-admin", api=1) as other_api:
        assert {server.id for server in other_api.list_servers()} == {server.id for server in servers}
        shown = other_api.compute.get_server_console_output(servers[0].id)["output"]
        assert "TINY" in shown
        assert other_api.delete_server(servers[0].id, wait=True)
    assert {one.name: one.state for one in admin.list_hypervisors()} == dict.fromkeys(HOSTS, "up")


def test_agent_killed_during_creates_loses_and_repeats_none(many: Cluster, admin: Connection) -> None:
    begin(admin, "torn", 20)
    wait_until(lambda: many.guests("h1"))
    many.agents["h1"].end(signal.SIGKILL)
    many.agents["h1"].start()
    servers = wait_until(lambda: at_rest(admin, 20), seconds=240)
    assert all(server.status == "ACTIVE" or server.fault["message"] for server in servers)
    running = [one for one in servers if one.status == "ACTIVE"]
    for host in HOSTS:
        here = [one for one in running if one.compute_host == host]
        wait_until(lambda host=host, here=here: len(many.guests(host)) == len(here))


def test_outages_of_broker_and_database_are_survived(many: Cluster, admin: Connection) -> None:
    begin(admin, "before")
    wait_until(lambda: at_rest(admin, 1))
    many.broker.stop()
    stopped = time.monotonic()
    begin(admin, "soon")  # accepted: the operation is in the database
    with pytest.raises(exceptions.HttpException) as refused:
        admin.compute.get_server_console_output(admin.get_server("before").id)
    assert refused.value.status_code == 503

    wait_until(lambda: time.monotonic() - stopped > 40)  # longer than the 30 s after which a silent host counts as down
    begin(admin, "late", 2)
    many.database.stop()
    try:
        answer = admin.compute.get("/servers", raise_exc=False, connect_retries=0)
        assert (answer.status_code, list(answer.json())) == (503, ["serviceUnavailable"])
    finally:
        many.database.start()
    with pytest.raises(exceptions.HttpException) as refused:
        admin.compute.get_server_console_output(admin.get_server("before").id)
    assert refused.value.status_code == 503
    wait_until(lambda: time.monotonic() - stopped > 60)
    begin(admin, "later")
    statuses = {one.name.partition("-")[0]: one.status for one in admin.list_servers()}
    assert statuses == {"before": "ACTIVE", "soon": "BUILD", "late": "BUILD", "later": "BUILD"}
    assert {_state(admin, host) for host in HOSTS} == {"up"}, "without received heartbeats, liveness is frozen"

    many.broker.start()
    wait_until(lambda: at_rest(admin, 5), seconds=180)
    assert all_active(admin)
    assert {_state(admin, host) for host in HOSTS} == {"up"}
    later = admin.get_server("later").id
    wait_until(lambda: "TINY" in admin.compute.get_server_console_output(later)["output"])


def test_host_that_was_down_gets_no_servers_and_reconciles_later(many: Cluster, admin: Connection) -> None:
    begin(admin, "kept", availability_zone="nova:h3")
    begin(admin, "removed", availability_zone="nova:h3")
    wait_until(lambda: at_rest(admin, 2))
    assert len(many.guests("h3")) == 2
    many.agents["h3"].end(signal.SIGKILL)
    wait_until(lambda: _state(admin, "h3") == "down", seconds=60)
    begin(admin, "elsewhere", 2)
    servers = wait_until(lambda: at_rest(admin, 4))
    assert {one.compute_host for one in servers if one.name.startswith("elsewhere")} == {"h1", "h2"}
    removed = next(one for one in servers if one.name == "removed")
    assert admin.delete_server(removed.id, wait=True)
    assert len(many.guests("h3")) == 2  # the agent is down and cannot remove the guest

    many.agents["h3"].start()

    wait_until(lambda: len(many.guests("h3")) == 1, seconds=60)
    wait_until(lambda: _state(admin, "h3") == "up")
    assert admin.get_server("kept").status == "ACTIVE"


def _state(admin: Connection, name: str) -> str:
    return str(next(one.state for one in admin.list_hypervisors() if one.name == name))


def test_live_and_cold_migration_and_evacuation(many: Cluster, admin: Connection, key: Key) -> None:
    begin(admin, "moving")
    (server,) = wait_until(lambda: at_rest(admin, 1))
    many.lead_to(server.access_ipv6, server.compute_host)
    booted = key.ssh(server.access_ipv6, "cat /proc/sys/kernel/random/boot_id; echo kept > /root/mark; sync")

    def moved(status: str, before: str) -> Any:
        found = admin.compute.get_server(server.id)
        assert found.status != "ERROR", found.fault
        return found if found.status == status and found.compute_host != before and not found.task_state else None

    admin.compute.live_migrate_server(server.id, host=None, block_migration="auto")
    alive = wait_until(lambda: moved("ACTIVE", server.compute_host))
    many.lead_to(server.access_ipv6, alive.compute_host)
    assert key.ssh(server.access_ipv6, "cat /proc/sys/kernel/random/boot_id") == booted
    wait_until(lambda: many.guests(server.compute_host) == [])

    admin.compute.migrate_server(server.id)
    cold = wait_until(lambda: moved("VERIFY_RESIZE", alive.compute_host))
    many.lead_to(server.access_ipv6, cold.compute_host)
    assert key.ssh(server.access_ipv6, "cat /root/mark") == "kept\n"
    admin.compute.confirm_server_resize(server.id)
    wait_until(lambda: moved("ACTIVE", alive.compute_host))
    types = [(one.migration_type, one.status) for one in admin.compute.migrations(instance_uuid=server.id)]
    assert sorted(types) == [("live-migration", "completed"), ("migration", "confirmed")]

    # Evacuation: the host loses power, the server is rebuilt on another host with the same address.
    dead = cold.compute_host
    many.agents[dead].end(signal.SIGKILL)
    for guest in many.guests(dead):
        os.kill(guest, signal.SIGKILL)
    wait_until(lambda: _state(admin, dead) == "down", seconds=60)
    admin.compute.evacuate_server(server.id)
    anew = wait_until(lambda: moved("SHUTOFF", dead))
    admin.compute.start_server(server.id)
    wait_until(lambda: moved("ACTIVE", dead))
    many.lead_to(server.access_ipv6, anew.compute_host)
    assert key.ssh(server.access_ipv6, "cat /root/mark 2>/dev/null || echo new") == "new\n"
    remains = many.state(dead) / "machines" / server.id
    assert remains.exists()
    many.agents[dead].start()
    wait_until(lambda: not remains.exists(), seconds=60)
    assert many.guests(dead) == []
    assert len(many.guests(anew.compute_host)) == 1


def test_hosts_connect_consoles_to_the_requested_api_machine(many: Cluster, admin: Connection) -> None:
    begin(admin, "seen", availability_zone="nova:h2")
    (server,) = wait_until(lambda: at_rest(admin, 1))
    with many.connect("sixstack-admin", api=1) as other:
        page = admin.compute.create_console(server.id, "novnc")["url"]
        line = other.compute.create_console(server.id, "serial")["url"]
    for again in (False, True):
        with (
            connect(web_socket(page), proxy=None, max_size=None) as screen,
            connect(line, proxy=None) as serial,
        ):
            assert Stream(screen).exactly(12) == b"RFB 003.008\n"
            serial.send(b"\r")
            Stream(serial).until(b"login:")
            if again:
                break
            many.agents["h2"].end(signal.SIGKILL)
            for client in (screen, serial):
                with pytest.raises(ConnectionClosed):
                    drain(client)
        many.agents["h2"].start()
