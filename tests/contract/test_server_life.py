"""Life cycle of a server through the `openstack` command, verified in the guest over ssh."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from openstack.connection import Connection

from tests.contract.conftest import Cloud, Key, wait_until

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


@dataclass
class Guest:
    """A server of the demo user with its address."""

    cloud: Cloud
    connection: Connection
    key: Key
    name: str
    id: str = ""
    address: str = ""

    def do(self, *words: str) -> str:
        """Run `openstack server <words> <name>`."""
        return self.cloud.cli("server", *words, self.name)

    def becomes(self, status: str, seconds: float = 120) -> None:
        def look() -> bool:
            server = self.connection.compute.get_server(self.id)
            assert server.status in (status, *PASSING), f"{server.status}: {server.fault}"
            return bool(server.status == status and server.task_state is None)

        wait_until(look, seconds=seconds)

    def ssh(self, command: str) -> str:
        return self.key.ssh(self.address, command)


PASSING = (
    *("BUILD", "ACTIVE", "SHUTOFF", "REBUILD", "RESIZE", "REVERT_RESIZE", "VERIFY_RESIZE", "HARD_REBOOT", "REBOOT"),
    *("SUSPENDED", "PAUSED", "RESCUE", "SHELVED_OFFLOADED"),
)


@pytest.fixture
def guest(cloud: Cloud, connection: Connection, key: Key) -> Iterator[Guest]:
    server = connection.create_server("life", image="tiny", flavor="tiny", key_name="key", wait=True)
    yield Guest(cloud, connection, key, "life", server.id, server.access_ipv6)
    for one in connection.list_servers():
        connection.delete_server(one.id, wait=True)


def test_guest_is_paused_suspended_and_resumed(guest: Guest) -> None:
    booted = guest.ssh(BOOT_ID)
    guest.do("pause")
    guest.becomes("PAUSED")
    guest.do("unpause")
    guest.becomes("ACTIVE")
    guests = guest.cloud.guests()
    guest.do("suspend")
    guest.becomes("SUSPENDED")
    assert len(guest.cloud.guests()) == len(guests) - 1
    guest.cloud.kill()
    guest.cloud.up()
    guest.do("resume")
    guest.becomes("ACTIVE")
    assert guest.ssh(BOOT_ID) == booted
    guest.do("dump", "create")
    wait_until(lambda: "NMI received" in guest.cloud.cli("console", "log", "show", guest.id), seconds=60)


def test_a_rebuilt_guest_is_fresh_at_the_same_address(guest: Guest) -> None:
    guest.ssh("echo old > /root/mark; sync")
    guest.do("rebuild", "--image", "tiny", "--wait")
    assert guest.ssh("cat /root/mark 2>/dev/null || echo fresh").strip() == "fresh"


def test_snapshot_of_a_running_guest_contains_its_writes(guest: Guest) -> None:
    booted = guest.ssh(f"echo kept > /root/mark; sync; {BOOT_ID}")
    guest.do("image", "create", "--name", "copy", "--wait")
    assert guest.ssh(BOOT_ID) == booted
    copy = guest.connection.create_server("copy", image="copy", flavor="tiny", key_name="key", wait=True)
    assert guest.key.ssh(copy.access_ipv6, "cat /root/mark").strip() == "kept"
    guest.do("backup", "create", "--name", "daily", "--type", "daily", "--rotate", "1", "--wait")
    guest.connection.delete_image("copy", wait=True)
    guest.connection.delete_image("daily", wait=True)


def test_a_resize_is_seen_inside_and_reverted_and_confirmed(guest: Guest) -> None:
    memory = "grep MemTotal /proc/meminfo"
    small = int(guest.ssh(f"echo old > /root/mark; sync; {memory}").split()[1])
    guest.do("resize", "--flavor", "small", "--wait")
    assert int(guest.ssh(memory).split()[1]) > 3 * small
    assert int(guest.ssh("cat /sys/block/vda/size")) == 5 << 21
    guest.ssh("echo new > /root/mark; sync")
    guest.do("resize", "revert")
    guest.becomes("ACTIVE")
    assert guest.ssh("cat /root/mark").strip() == "old"
    assert int(guest.ssh(memory).split()[1]) == small
    guest.do("resize", "--flavor", "small", "--wait")
    guest.do("resize", "confirm")
    guest.becomes("ACTIVE")
    assert guest.ssh("cat /root/mark").strip() == "old"


def test_shelved_guest_is_restored(guest: Guest) -> None:
    guest.ssh("echo kept > /root/mark; sync")
    guest.do("shelve", "--wait")
    assert guest.connection.compute.get_server(guest.id).status == "SHELVED_OFFLOADED"
    assert not (guest.cloud.state / "machines" / guest.id).exists()
    guest.do("unshelve", "--wait")
    guest.becomes("ACTIVE")
    assert guest.ssh("cat /root/mark").strip() == "kept"
    guest.do("reboot", "--hard", "--wait")
    assert guest.ssh("cat /root/mark").strip() == "kept"


def test_an_interface_is_plugged_into_a_running_guest_and_out_again(guest: Guest) -> None:
    guest.ssh("true")
    network = guest.connection.network.find_network("public")
    port = guest.connection.network.create_port(network_id=network.id, name="second")
    guest.cloud.cli("server", "add", "port", guest.name, "second")
    wait_until(lambda: port.mac_address in guest.ssh("ip link"))
    guest.cloud.cli("server", "remove", "port", guest.name, "second")
    wait_until(lambda: port.mac_address not in guest.ssh("ip link"))
    wait_until(lambda: not guest.connection.network.get_port(port.id).device_id)
    guest.connection.network.delete_port(port.id)


def test_a_rescued_guest_runs_and_is_rescued_no_more(guest: Guest) -> None:
    guest.do("rescue")
    guest.becomes("RESCUE")
    disks = guest.ssh("ls /sys/block").split()
    assert {"vda", "vdb", "vdc"} <= set(disks)
    guest.do("unrescue")
    guest.becomes("ACTIVE")
    assert "vdc" not in guest.ssh("ls /sys/block").split()


def test_a_delete_does_not_wait_for_a_guest_that_does_not_power_off(guest: Guest) -> None:
    booted = guest.ssh(f"killall -STOP acpid 2>/dev/null; {BOOT_ID}")
    assert booted
    guest.connection.compute.stop_server(guest.id)
    began = time.monotonic()
    guest.connection.delete_server(guest.id, wait=True)
    assert time.monotonic() - began < 20


def test_diagnostics_and_actions_are_shown(guest: Guest) -> None:
    guest.ssh("true")
    path = f"/servers/{guest.id}/diagnostics"
    with guest.cloud.connect("sixstack-admin") as admin:
        answer = admin.compute.get(path, microversion="2.48").json()
        assert answer["num_cpus"] == 1
        assert answer["nic_details"][0]["tx_octets"] > 0
        assert admin.compute.get(path, microversion="2.1").json()["memory"] == 128 * 1024
    events = json.loads(guest.cloud.cli("server", "event", "list", guest.name, "-f", "json"))
    assert [event["Action"] for event in events] == ["create"]
    assert os.path.isdir(guest.cloud.state / "machines" / guest.id)
