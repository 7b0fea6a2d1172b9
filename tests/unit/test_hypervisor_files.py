"""Host files: names, console logs, pid files, radvd configuration, and spec documents."""

import os
import shutil
import signal
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest
from pydantic import ValidationError

from hypervisor.api.spec import MachineSpec
from hypervisor.base import paths, process
from hypervisor.base.config import RouterTiming
from hypervisor.fake import FakeHypervisor
from hypervisor.machines.console_log import CONSOLE_BYTES, read_console_tail, trim_console
from hypervisor.machines.launch import machine_identity
from hypervisor.network.links import Links
from hypervisor.network.radvd import Advertisement, radvd_conf


@pytest.mark.parametrize("machine_id", ["", ".", "..", "../../etc", ".removed-x"])
def test_an_id_cannot_lead_out_of_the_directory(tmp_path: Path, machine_id: str) -> None:
    with pytest.raises(ValueError, match="id of a machine"):
        paths.HostPaths(tmp_path).machine(machine_id)


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    paths.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_console_keeps_its_last_mebibyte_and_frees_the_rest(tmp_path: Path) -> None:
    console = tmp_path / "console"
    console.write_bytes(b"x" * (5 << 20) + b"the end")
    trim_console(console)
    tail = read_console_tail(console)
    assert len(tail) == CONSOLE_BYTES
    assert tail.endswith(b"xx" + b"the end")
    assert tail[:1] == b"x"
    assert console.stat().st_blocks * 512 <= CONSOLE_BYTES + 8192
    with console.open("ab") as file:
        file.write(b", and more")
    assert read_console_tail(console).endswith(b"the end, and more")


def test_no_console_is_an_empty_one(tmp_path: Path) -> None:
    trim_console(tmp_path / "console")
    assert read_console_tail(tmp_path / "console") == b""


@pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid is not installed")
def test_daemon_is_detached_and_found_by_its_pid_file(tmp_path: Path) -> None:
    pid_file, log = tmp_path / "pid", tmp_path / "log"
    process.start(["sh", "-c", "echo started; exec sleep 60"], pid_file=pid_file, log=log)
    running = process.wait_for_start(pid_file, 5)
    assert running is not None
    assert process.find(pid_file) == running
    assert not running.wait(0)
    while "started" not in log.read_text():
        assert running.is_alive()
    running.end()
    assert not running.is_alive()
    assert process.find(pid_file) is None
    running.send(signal.SIGTERM)
    with pytest.raises(ChildProcessError):
        os.waitpid(running.pid, os.WNOHANG)


def test_a_pid_file_of_another_process_or_boot_is_ignored(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    stat = Path("/proc/self/stat").read_text()
    pid_file.write_text(f"{process.boot_id()} {stat}")
    assert process.find(pid_file) == process.Process(os.getpid(), process._parse_start_time(stat))
    before, after = stat.rsplit(")", 1)
    words = after.split()
    words[19] = "1"
    pid_file.write_text(f"{process.boot_id()} {before}) {' '.join(words)}\n")
    assert process.find(pid_file) is None
    pid_file.write_text(f"another-boot {stat}")
    assert process.find(pid_file) is None
    pid_file.write_text("")
    assert process.find(pid_file) is None


def test_link_names_fit_and_carry_the_installation() -> None:
    links = Links("abcd", "lo")
    names = [links.bridge(0xFFFFFF), links.vxlan(0xFFFFFF), links.tap("9fd63e5a-6b8f-4b5c-a3d1-000000000001")]
    assert all(len(name) <= 15 for name in names)
    assert all(name[2:6] == "abcd" for name in names)
    links.close()


def test_each_machine_has_its_own_uid() -> None:
    one, two = machine_identity("abcd", "one"), machine_identity("abcd", "two")
    assert one == machine_identity("abcd", "one")
    assert one.uid != two.uid
    assert 0x7000_0000 <= one.uid < 0x7FFF_0000


def test_radvd_announces_prefix_mtu_and_resolvers() -> None:
    advertisement = Advertisement(
        interface="6babcd-000378",
        prefixes=(IPv6Network("2a0a:e5c1:111:888::/64"),),
        mtu=1430,
        source=IPv6Address("fe80::a9fe:a9fe"),
        dns_servers=(IPv6Address("2a0a::53"), IPv6Address("2a0a::54")),
        dns_search=("a.example", "b.example"),
    )
    text = radvd_conf((advertisement,), RouterTiming(default_lifetime=600, dns_lifetime=900))
    inside = radvd_conf((replace(advertisement, gateway=False),), RouterTiming(default_lifetime=600, dns_lifetime=900))
    assert inside == text.replace("AdvDefaultLifetime 600", "AdvDefaultLifetime 0"), (
        "without a gateway, the router lifetime is 0"
    )
    assert "interface 6babcd-000378 {" in text
    assert "AdvLinkMTU 1430;" in text
    assert "prefix 2a0a:e5c1:111:888::/64 {" in text
    assert "RDNSS 2a0a::53 2a0a::54 { AdvRDNSSLifetime 900; };" in text
    assert "DNSSL a.example b.example { AdvDNSSLLifetime 900; };" in text
    assert "AdvDefaultLifetime 600;" in text
    assert text.count("{") == text.count("}")


def test_unknown_keys_in_documents_are_refused() -> None:
    with pytest.raises(ValidationError):
        MachineSpec.model_validate({"id": "x", "surprise": 1})


def test_fake_hypervisor_fails_on_demand() -> None:
    from hypervisor.api.errors import LaunchFailed

    host = FakeHypervisor()
    host.fail_next("ensure_running", LaunchFailed("told to"))
    spec = MachineSpec(id="x", name="x", hostname="x", project_id="p", vcpus=1, memory_mib=64, disks=())
    with pytest.raises(LaunchFailed):
        host.ensure_running(spec)
    host.ensure_running(spec)
    host.guest_powers_off("x")
    assert host.report("x").state == "shutoff"
