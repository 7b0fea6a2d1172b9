"""Server creation up to ssh access, with real clients and guests, and recovery from kill -9."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from openstack.connection import Connection

from tests.contract.conftest import BIN, Cloud, Key, free_port, wait_until


def test_sdk_creates_a_server_with_ssh_and_deletes_it(
    cloud: Cloud, connection: Connection, boot: Callable[..., Any], key: Key
) -> None:
    links, guests = cloud.links(), cloud.guests()
    server = boot("x", userdata="#!/bin/sh\necho made > /root/made\n", meta={"role": "test"})
    assert server.status == "ACTIVE"
    assert server.public_v6 == server.access_ipv6
    assert "Linux" in key.ssh(server.public_v6, "uname -a")
    assert key.ssh(server.public_v6, "hostname").strip() == "x"
    assert wait_until(lambda: key.ssh(server.public_v6, "cat /root/made || true")).strip() == "made"
    console = connection.get_server_console(server)
    assert "TINY:" in console
    assert connection.delete_server(server.id, wait=True)
    assert set(cloud.links()) <= set(links)
    assert cloud.guests() == guests
    assert not (cloud.state / "machines" / server.id).exists()


def test_the_openstack_command_does_the_main_job(cloud: Cloud, connection: Connection, key: Key) -> None:
    create = ["server", "create", "--flavor", "tiny", "--image", "tiny", "--key-name", "key", "--wait", "cli"]
    made = json.loads(cloud.cli(*create, "-f", "json"))
    assert made["status"] == "ACTIVE"
    shown = json.loads(cloud.cli("server", "show", "cli", "-f", "json"))
    assert key.ssh(shown["addresses"]["public"][0], "hostname").strip() == "cli"
    assert "cli" in cloud.cli("server", "list")
    cloud.cli("server", "stop", "cli")
    wait_until(lambda: connection.get_server("cli").status == "SHUTOFF")
    cloud.cli("server", "start", "cli")
    wait_until(lambda: connection.get_server("cli").status == "ACTIVE")
    booted = key.ssh(shown["addresses"]["public"][0], "cat /proc/sys/kernel/random/boot_id")
    cloud.cli("server", "reboot", "--wait", "cli")
    again = key.ssh(shown["addresses"]["public"][0], "cat /proc/sys/kernel/random/boot_id")
    assert booted != again
    assert "TINY:" in cloud.cli("console", "log", "show", "cli")
    cloud.cli("server", "delete", "--wait", "cli")
    assert cloud.cli("server", "list", "-f", "value") == ""


@pytest.mark.parametrize(
    "listing", ["network", "subnet", "port", "router", "floating ip", "volume", "limits show", "availability zone"]
)
def test_lists_of_clients_succeed(cloud: Cloud, listing: str) -> None:
    words = listing.split()
    cloud.cli(*(words if words[-1] == "show" else [*words, "list"]), *(["--absolute"] if "limits" in words else []))


@pytest.mark.xdist_group(
    "cluster"
)  # shares a worker with tests that boot many guests: forty at a time overload the machine
def test_a_burst_of_twenty(cloud: Cloud, connection: Connection) -> None:
    others = set(cloud.guests())
    image, flavor = connection.get_image("tiny"), connection.get_flavor("tiny")
    connection.compute.create_server(
        name="many", image_id=image.id, flavor_id=flavor.id, min_count=20, max_count=20, networks="auto"
    )

    def all_active() -> list[Any] | None:
        servers = connection.list_servers()
        assert not [server.fault for server in servers if server.status == "ERROR"]
        return servers if {server.status for server in servers} == {"ACTIVE"} else None

    servers = wait_until(all_active, seconds=240, pause=1.0)
    assert len(servers) == 20
    assert len({server.access_ipv6 for server in servers}) == 20
    assert len(set(cloud.guests()) - others) == 20
    for server in servers:
        connection.compute.delete_server(server.id)
    wait_until(lambda: not connection.list_servers(), seconds=120, pause=1.0)
    assert set(cloud.guests()) <= others


def test_servers_survive_the_death_of_everything_of_ours(other_cloud: Cloud, key: Key) -> None:
    with other_cloud.connect() as connection:
        servers = [
            connection.create_server(name, image="tiny", flavor="tiny", key_name="key", wait=True)
            for name in ("a", "b")
        ]
        booted = [key.ssh(server.access_ipv6, "cat /proc/sys/kernel/random/boot_id") for server in servers]
    guests = sorted(other_cloud.guests())
    other_cloud.kill()
    assert sorted(other_cloud.guests()) == guests

    other_cloud.up()

    with other_cloud.connect() as connection:
        assert {server.status for server in connection.list_servers()} == {"ACTIVE"}
        for server, boot_id in zip(servers, booted, strict=True):
            assert key.ssh(server.access_ipv6, "cat /proc/sys/kernel/random/boot_id") == boot_id
            assert connection.delete_server(server.id, wait=True)
    assert other_cloud.guests() == []


def test_build_interrupted_by_kill_ends_active_or_error(other_cloud: Cloud) -> None:
    """After kill -9 at several moments of a build, every server becomes ACTIVE, or ERROR with a fault message."""
    for seconds in (0.0, 0.2, 0.6):
        with other_cloud.connect() as connection:
            image, flavor = connection.get_image("tiny"), connection.get_flavor("tiny")
            connection.compute.create_server(
                name="torn", image_id=image.id, flavor_id=flavor.id, min_count=2, max_count=2, networks="auto"
            )
        time.sleep(seconds)  # moment of the kill, not a wait for a condition
        other_cloud.kill()
        other_cloud.up()
        with other_cloud.connect() as connection:

            def rested(connection: Connection = connection) -> list[Any] | None:
                servers = connection.list_servers()
                return servers if all(one.status in ("ACTIVE", "ERROR") for one in servers) else None

            servers = wait_until(rested, seconds=60)
            assert len(servers) == 2
            assert all(server.status == "ACTIVE" or server.fault["message"] for server in servers)
            for server in servers:
                assert connection.delete_server(server.id, wait=True)
        assert other_cloud.guests() == []


def test_down_leaves_guests_running_and_up_restarts_stopped_ones(other_cloud: Cloud, key: Key) -> None:
    with other_cloud.connect() as connection:
        server = connection.create_server("stays", image="tiny", flavor="tiny", key_name="key", wait=True)
    other_cloud.down()
    assert len(other_cloud.guests()) == 1
    key.ssh(server.access_ipv6, "touch /root/kept; sync")

    other_cloud.down("--servers")
    assert other_cloud.guests() == []
    assert other_cloud.links() == []

    other_cloud.up()
    assert key.ssh(server.access_ipv6, "ls /root/kept").strip() == "/root/kept"
    with other_cloud.connect() as connection:
        assert connection.get_server(server.id).status == "ACTIVE"


def test_an_api_process_that_dies_is_started_again(other_cloud: Cloud) -> None:
    for name in (b"compute_agent", b"app.server"):
        for pid in other_cloud.pids():
            with open(f"/proc/{pid}/cmdline", "rb") as command:
                if name in command.read():
                    os.kill(pid, signal.SIGKILL)
        with other_cloud.connect() as connection:

            def answers(connection: Connection = connection) -> bool:
                try:
                    return bool(connection.list_flavors())
                except Exception:
                    return False

            wait_until(answers, seconds=30)
            server = connection.create_server("after", image="tiny", flavor="tiny", wait=True, timeout=60)
            assert connection.delete_server(server.id, wait=True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--listen", "nonsense"], "--listen must be ADDRESS:PORT"),
        (["--prefix", "10.0.0.0/8"], "--prefix"),
        (["--uplink", "nolink0"], "There is no network link nolink0"),
    ],
)
def test_a_wrong_option_is_one_clear_line(tmp_path: Any, arguments: list[str], reason: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gets so far")
    listen = [] if "--listen" in arguments else ["--listen", f"127.0.0.1:{free_port()}"]
    command = [BIN / "sixstack", "up", "--state", tmp_path / "state", *listen, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_busy_port_is_one_clear_line(cloud: Cloud, tmp_path: Any) -> None:
    command = [BIN / "sixstack", "up", "--state", tmp_path / "state", "--listen", cloud.listen]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_second_up_in_the_same_state_is_refused(cloud: Cloud) -> None:
    command = [BIN / "sixstack", "up", "--state", cloud.state, "--listen", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "already runs" in done.stderr
