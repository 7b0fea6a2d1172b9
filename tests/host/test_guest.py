"""A booted guest: address, SSH key, hostname, reboots and power off."""

import base64
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hypervisor.api.errors import LaunchFailed
from hypervisor.api.spec import InjectedFile, KeySpec, MachineState
from hypervisor.base.config import HostConfig
from hypervisor.driver import QemuHypervisor
from tests.host.support import HostMaker, OneImage, image_ref, make_spec, ssh

VIRTUAL_BYTES = 44_040_192


def test_a_guest_boots_accepts_ssh_and_follows_power_actions(
    make_host: HostMaker, tiny_image: Path, ssh_key: tuple[Path, KeySpec]
) -> None:
    private, public = ssh_key
    image = image_ref(tiny_image, "qcow2", VIRTUAL_BYTES)
    script = base64.b64encode(b"#!/bin/sh\necho written-by-user-data > /root/mark\n").decode()
    one = make_spec(1, image, key=public, user_data=script)
    two = make_spec(2, image, key=public)
    host = make_host(OneImage(tiny_image))

    started = time.monotonic()
    host.ensure_running(one)
    launch_seconds = time.monotonic() - started
    host.ensure_running(two)

    assert ssh(one, private, "hostname").strip() == "vm1"
    assert ssh(one, private, "cat /root/mark").strip() == "written-by-user-data"
    assert "mtu 1430" in ssh(one, private, "ip link show eth0")
    neighbour = two.nics[0].addresses[0].ip
    ssh(two, private, "true")
    assert "0% packet loss" in ssh(one, private, f"ping6 -c 2 {neighbour}")
    assert b"vm1" in host.console_log(one.id)
    assert launch_seconds < 20, "a fraction of a second when nobody else is busy"

    # A new agent manages the machine; the guest keeps its data.
    later = make_host(OneImage(tiny_image))
    later.repair()
    ssh(one, private, "echo kept > /root/kept; sync")
    before = later.report(one.id)
    assert later.reboot(one, hard=False, grace_seconds=30).started_at != before.started_at
    assert ssh(one, private, "cat /root/kept").strip() == "kept"
    assert later.report(two.id).state is MachineState.RUNNING

    # The guest powers off.
    ssh(one, private, "poweroff >/dev/null 2>&1 &")
    deadline = time.monotonic() + 30
    while later.report(one.id).state is not MachineState.SHUTOFF:
        assert time.monotonic() < deadline, later.console_log(one.id)[-2000:]
        time.sleep(0.2)
    began = time.monotonic()
    assert later.ensure_stopped(two.id, grace_seconds=30).state is MachineState.SHUTOFF
    assert time.monotonic() - began < 25, "the guest heard the power button"
    later.remove(one.id)
    later.remove(two.id)


def test_a_booting_guest_powers_off(make_host: HostMaker, tiny_image: Path) -> None:
    host = make_host(OneImage(tiny_image))
    spec = make_spec(1, image_ref(tiny_image, "qcow2", VIRTUAL_BYTES))
    host.ensure_running(spec)
    assert host.ensure_stopped(spec.id, grace_seconds=120).state is MachineState.SHUTOFF
    assert b"Power down" in host.console_log(spec.id)
    host.ensure_running(spec)
    host.remove(spec.id)


def test_qemu_runs_without_privileges(make_host: HostMaker, blank_image: Path) -> None:
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20), admin_pass="secret-of-the-user")
    host = make_host(OneImage(blank_image))
    host.ensure_running(spec)
    process = host.machines.process_of(host.paths.machine(spec.id))
    assert process is not None
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert "Groups:\t \n" in status or "Groups:\t\n" in status
    uid = int(status.split("Uid:\t")[1].split("\t")[0])
    assert uid > 1_000_000_000
    assert b"secret-of-the-user" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    for path in host.paths.machine(spec.id).directory.iterdir():
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path
    assert host.paths.machine(spec.id).directory.stat().st_mode & 0o777 == 0o700
    host.remove(spec.id)


def test_a_state_directory_may_be_deep_and_private(make_host: HostMaker, blank_image: Path, tmp_path: Path) -> None:
    deep = tmp_path / "private" / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    (tmp_path / "private").chmod(0o700)
    (tmp_path / "state").symlink_to(deep)
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20))
    host = make_host(OneImage(blank_image))
    assert host.ensure_running(spec).state is MachineState.RUNNING
    host.remove(spec.id)


def test_two_installations_do_not_affect_each_other(make_host: HostMaker, blank_image: Path, tmp_path: Path) -> None:
    mine = make_host(OneImage(blank_image))
    image = image_ref(blank_image, "raw", 1 << 20)
    config = HostConfig(state=tmp_path / "other", installation="0123", host_name="other", accelerator="tcg")
    theirs = QemuHypervisor(config, OneImage(blank_image))
    one, two = make_spec(1, image, vni=0x700), make_spec(2, image, vni=0x701)
    mine.ensure_running(one)
    theirs.ensure_running(two)
    clash = make_spec(3, image, vni=0x700)
    with pytest.raises(LaunchFailed, match="VNI"):
        theirs.ensure_running(clash)
    mine.repair()
    mine.remove(one.id)
    mine.close_down()
    assert theirs.report(two.id).state is MachineState.RUNNING
    assert [report.id for report in theirs.reports()] == [two.id]
    theirs.remove(two.id)
    theirs.evict_images(frozenset())
    theirs.close_down()
    theirs.close()
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in links.splitlines()] == ["lo"]


def test_a_removed_bridge_is_repaired(make_host: HostMaker, blank_image: Path) -> None:
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20))
    host = make_host(OneImage(blank_image))
    host.ensure_running(spec)
    bridge, tap = host.links.bridge(0x666), host.links.tap(spec.nics[0].port_id)
    subprocess.run(["ip", "link", "del", "dev", bridge], check=True)
    host.repair()
    shown = subprocess.run(["ip", "link", "show", "dev", tap], capture_output=True, text=True, check=True).stdout
    assert f"master {bridge}" in shown
    host.remove(spec.id)


def test_a_machine_does_not_change_the_hosts_sysctls(make_host: HostMaker, blank_image: Path) -> None:
    subprocess.run(["ip", "link", "add", "dev", "outside", "type", "veth", "peer", "name", "inside"], check=True)
    sysctl = Path("/proc/sys/net/ipv6/conf")
    before = {key: (sysctl / key).read_text() for key in ("all/forwarding", "outside/forwarding", "outside/accept_ra")}
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20))
    host = make_host(OneImage(blank_image))
    host.ensure_running(spec)
    assert {key: (sysctl / key).read_text() for key in before} == before
    host.remove(spec.id)


def test_radvd_is_found_after_a_restart_and_restarted_when_dead(make_host: HostMaker, blank_image: Path) -> None:
    spec = make_spec(1, image_ref(blank_image, "raw", 1 << 20))
    host = make_host(OneImage(blank_image))
    host.ensure_running(spec)
    first = host.router.find_process()
    assert first is not None
    later = make_host(OneImage(blank_image))
    later.repair()
    assert later.router.find_process() == first
    first.end()
    later.repair()
    revived = later.router.find_process()
    assert revived is not None
    assert revived != first
    later.remove(spec.id)
    assert later.router.find_process() is None


def test_a_machine_is_started_within_a_second(make_host: HostMaker, blank_image: Path) -> None:
    image = image_ref(blank_image, "raw", 1 << 20)
    host = make_host(OneImage(blank_image))
    host.ensure_running(make_spec(1, image))
    before, began = os.times(), time.monotonic()
    second = make_spec(2, image)
    host.ensure_running(second)
    after = os.times()
    own_cpu = after.user + after.system - before.user - before.system
    assert own_cpu < 0.3, "our own share of a launch"
    assert time.monotonic() - began < 10
    for report in host.reports():
        host.remove(report.id)


def test_missing_root_privileges_raise_a_readable_error(tmp_path: Path, namespace: None) -> None:
    script = (
        "import os, sys; sys.path.insert(0, os.getcwd())\n"
        "from pathlib import Path\n"
        "from hypervisor.base.config import HostConfig\n"
        "from hypervisor.driver import QemuHypervisor\n"
        "host = QemuHypervisor(HostConfig(Path(sys.argv[1]), '0123', 'h'), None)\n"
        "os.setuid(65534)\n"
        "try:\n    host.check()\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("HostUnfit")
    assert "root" in result.stdout


def test_ssh_clients_find_their_host_key_and_copy_files(
    make_host: HostMaker, tiny_image: Path, ssh_key: tuple[Path, KeySpec], tmp_path: Path
) -> None:
    private, public = ssh_key
    injected = InjectedFile(path="/root/new folder/file", contents=base64.b64encode(b"injected").decode())
    spec = make_spec(1, image_ref(tiny_image, "qcow2", VIRTUAL_BYTES), key=public, files=(injected,))
    host = make_host(OneImage(tiny_image))
    host.ensure_running(spec)
    ssh(spec, private, "true")

    # One key type at a time, for clients that accept no other: Go prefers ecdsa, old clients support rsa only.
    known = tmp_path / "known_hosts"
    options = ["-i", str(private), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
    options += ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={known}"]
    address = spec.nics[0].addresses[0].ip
    for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256"):
        known.unlink(missing_ok=True)
        for _ in range(2):  # the second time against known_hosts: the host key persists
            words = ["ssh", *options, "-o", f"HostKeyAlgorithms={kind}", f"root@{address}", "true"]
            deadline = time.monotonic() + 90
            # Under load the guest may close a connection while it generates the key.
            while (done := subprocess.run(words, capture_output=True, text=True, timeout=120)).returncode == 255:
                assert time.monotonic() < deadline, f"{kind}: {done.stderr}"
            assert done.returncode == 0, f"{kind}: {done.stderr}"

    sent = tmp_path / "sent"
    sent.write_bytes(os.urandom(100_000))
    for name, protocol in (("scp", ["-O"]), ("sftp", ["-s"])):
        fetched = tmp_path / name
        for source, target in (
            (str(sent), f"root@[{address}]:/root/{name}"),
            (f"root@[{address}]:/root/{name}", str(fetched)),
        ):
            words = ["scp", "-q", *protocol, *options, source, target]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, f"{name}: {done.stderr}"
        assert fetched.read_bytes() == sent.read_bytes()
    assert ssh(spec, private, "cat '/root/new folder/file'") == "injected"
    host.remove(spec.id)
