"""Flavor extra specs on a real guest: CPU topology, and limits of CPU, disk and network."""

import subprocess
import time
from pathlib import Path

import pytest

from hypervisor.api.spec import CpuLimits, DiskLimits, DiskSpec, KeySpec, Rate, Topology
from hypervisor.base import process
from hypervisor.machines import limits as machines_limits
from tests.host.support import HostMaker, OneImage, make_spec, ssh
from tests.host.test_life import tiny_ref


def test_a_guest_has_the_processors_disks_and_network_of_its_flavor(
    make_host: HostMaker, tiny_image: Path, ssh_key: tuple[Path, KeySpec]
) -> None:
    private, public = ssh_key
    slow = Rate(average=500_000)
    spec = make_spec(1, tiny_ref(tiny_image), key=public)
    spec = spec.model_copy(
        update={
            "vcpus": 4,
            "topology": Topology(sockets=2, cores=1, threads=2),
            "disks": (
                *spec.disks,
                DiskSpec(name="ephemeral0", size_gib=1, filesystem="ext4"),
                DiskSpec(name="swap", size_mib=64, filesystem="swap"),
            ),
            "disk_limits": DiskLimits(write_bytes=1 << 20),
            "nics": (spec.nics[0].model_copy(update={"inbound": slow, "outbound": slow}),),
        }
    )
    host = make_host(OneImage(tiny_image))
    host.ensure_running(spec)

    processors = ssh(spec, private, "cat /proc/cpuinfo")
    assert processors.count("processor\t") == 4
    assert {line for line in processors.splitlines() if line.startswith("physical id")} == {
        "physical id\t: 0",
        "physical id\t: 1",
    }
    assert {line for line in processors.splitlines() if line.startswith("siblings")} == {"siblings\t: 2"}
    assert {line for line in processors.splitlines() if line.startswith("cpu cores")} == {"cpu cores\t: 1"}

    look = "findfs LABEL=ephemeral0; mount -t ext4 /dev/vdb /mnt && umount /mnt && swapon /dev/vdc && cat /proc/swaps"
    found = ssh(spec, private, look)
    assert found.startswith("/dev/vdb\n")
    assert "\n/dev/vdc " in found

    write = "dd if=/dev/zero of=/dev/vdb bs=64k count=64 oflag=direct 2>/dev/null"
    before, after = ssh(spec, private, f"cut -d' ' -f1 /proc/uptime; {write}; cut -d' ' -f1 /proc/uptime").split()
    assert float(after) - float(before) > 2.5, "4 MiB at 1 MiB a second"

    dropped = host.guard.count_dropped(spec.nics[0])
    begun = time.monotonic()
    assert len(ssh(spec, private, "head -c 1500000 /dev/zero | tr '\\0' x")) == 1_500_000
    assert time.monotonic() - begun > 2
    assert host.guard.count_dropped(spec.nics[0]) > dropped
    tap = host.links.tap(spec.nics[0].port_id)
    shown = subprocess.run(["tc", "class", "show", "dev", tap], capture_output=True, text=True, check=True).stdout
    assert "rate 4Mbit ceil 4Mbit" in shown
    host.remove(spec.id)


def test_cpu_limits_are_applied_to_the_cgroup(
    make_host: HostMaker, tiny_image: Path, ssh_key: tuple[Path, KeySpec]
) -> None:
    groups = next(iter(machines_limits.find_cpu_cgroups()), None)
    if groups is None:
        pytest.skip("there are no control groups for processors here")
    private, public = ssh_key
    limits = CpuLimits(shares=512, quota_us=50_000)
    spec = make_spec(1, tiny_ref(tiny_image), key=public, cpu_limits=limits)
    host = make_host(OneImage(tiny_image))
    host.ensure_running(spec)
    group = groups.directory / f"sixstack-{spec.id}"
    running = process.find(host.paths.machine(spec.id).pid)
    assert running is not None
    assert str(running.pid) in (group / "cgroup.procs").read_text().split()
    for file, value in groups.values(limits, 1).items():
        assert (group / file).read_text().strip() == value
    ssh(spec, private, "true")
    counted = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    assert int(counted["nr_throttled"]) > 0, "a guest that boots would like more than half of a processor"
    host.remove(spec.id)
    assert not group.exists()
