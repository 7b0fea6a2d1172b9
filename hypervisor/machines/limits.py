"""QoS limits of a running machine: disk throughput and IOPS, CPU quota and shares.

qemu throttles disks. CPU limits use a control group per machine, cgroup v1 or v2, wherever this host has the cpu
controller. A machine with CPU limits fails to start on a host without it.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qemu.qmp import QMPClient

from hypervisor.api.errors import LaunchFailed
from hypervisor.api.spec import CpuLimits, DiskLimits
from hypervisor.qemu import qmp
from hypervisor.qemu.command import disk_device

DEFAULT_PERIOD_US = 100_000
# How long an ended process may stay in its control group.
EMPTYING_SECONDS = 2.0


def throttle_disks(control: Path, numbers: Iterable[int], limits: DiskLimits) -> None:
    """Throttle the disks with these indexes in the command line. Raises HypervisorError."""
    rates = {
        "bps": limits.total_bytes,
        "bps_rd": limits.read_bytes,
        "bps_wr": limits.write_bytes,
        "iops": limits.total_requests,
        "iops_rd": limits.read_requests,
        "iops_wr": limits.write_requests,
    }

    async def converse(client: QMPClient) -> None:
        for number in numbers:
            backend = f"/machine/peripheral/{disk_device(number)}/virtio-backend"
            await client.execute("block_set_io_throttle", {"id": backend, **rates})

    qmp.run_session(control, converse)


@dataclass(frozen=True)
class CgroupRoot:
    """A cgroup directory with the cpu controller; `version` is 1 or 2."""

    directory: Path
    version: int

    def confine(self, name: str, pid: int, limits: CpuLimits, vcpus: int) -> None:
        """Move the process with all of its threads into a new group with these limits."""
        group = self.directory / name
        group.mkdir(exist_ok=True)
        for file, value in self.values(limits, vcpus).items():
            (group / file).write_text(value)
        (group / "cgroup.procs").write_text(str(pid))

    def values(self, limits: CpuLimits, vcpus: int) -> dict[str, str]:
        """Return the contents of the group's files by name."""
        period = limits.period_us or DEFAULT_PERIOD_US
        quota = limits.quota_us * vcpus if limits.quota_us else -1
        if self.version == 1:
            found = {"cpu.cfs_period_us": str(period), "cpu.cfs_quota_us": str(quota)}
            return found | ({"cpu.shares": str(limits.shares)} if limits.shares else {})
        found = {"cpu.max": f"{'max' if quota < 0 else quota} {period}"}
        if limits.shares:  # maps 2-262144 to 1-10000, like systemd and runc
            found["cpu.weight"] = str(1 + (min(max(limits.shares, 2), 262144) - 2) * 9999 // 262142)
        return found


def limit_cpu(name: str, pid: int, limits: CpuLimits, vcpus: int) -> None:
    """Limit the CPU time of the machine's process. Raises LaunchFailed when this host cannot."""
    for groups in find_cpu_cgroups():
        try:
            groups.confine(name, pid, limits, vcpus)
        except OSError as error:
            remove_cgroup(name)
            raise LaunchFailed(f"This host cannot limit a machine's processors: {error.strerror}.") from error
        return
    raise LaunchFailed("This host cannot limit a machine's processors: it has no control groups for them.")


def remove_cgroup(name: str) -> None:
    """Remove the group of a machine whose process has ended, if it has one."""
    for groups in find_cpu_cgroups():
        deadline = time.monotonic() + EMPTYING_SECONDS
        while True:
            try:
                os.rmdir(groups.directory / name)
            except OSError as error:
                if error.errno == errno.EBUSY and time.monotonic() < deadline:
                    time.sleep(0.01)
                    continue
            break


def find_cpu_cgroups() -> list[CgroupRoot]:
    """Return the usable cgroup directories: below the agent's own group if delegated, and at the root."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path.lstrip("/")
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        mount = Path(before.split(" ")[4])
        if kind == "cgroup2":
            places = [mount / own.get("", ""), mount]
            found += [CgroupRoot(place, 2) for place in dict.fromkeys(places) if _has_cpu_controller(place)]
        elif kind == "cgroup" and "cpu" in options.split(","):
            mine = next((path for names, path in own.items() if "cpu" in names.split(",")), "")
            found.append(CgroupRoot(mount / mine if (mount / mine).is_dir() else mount, 1))
    return found


def _has_cpu_controller(place: Path) -> bool:
    with contextlib.suppress(OSError):
        return "cpu" in (place / "cgroup.subtree_control").read_text().split()
    return False
