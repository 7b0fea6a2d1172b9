"""Limits of a running machine: what each of its disks may do in a second, and its part of the host's processors.

Disks are slowed down by qemu itself. Processors are the kernel's: a machine with limits has a control group of its own,
of whichever of the two versions this host has the processors in. Where it has neither, such a machine does not start.
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
# A process that has just ended stays in its group for a moment.
EMPTYING_SECONDS = 2.0


def throttle_disks(control: Path, numbers: Iterable[int], limits: DiskLimits) -> None:
    """From now on, the disks with these places in the command line are no faster. Raises HypervisorError."""
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
    """Where machines may have control groups for processors; `version` is 1 or 2."""

    directory: Path
    version: int

    def confine(self, name: str, pid: int, limits: CpuLimits, vcpus: int) -> None:
        """This process and all of its threads get no more than that."""
        group = self.directory / name
        group.mkdir(exist_ok=True)
        for file, value in self.values(limits, vcpus).items():
            (group / file).write_text(value)
        (group / "cgroup.procs").write_text(str(pid))

    def values(self, limits: CpuLimits, vcpus: int) -> dict[str, str]:
        """The files of a group and what is to be in them."""
        period = limits.period_us or DEFAULT_PERIOD_US
        quota = limits.quota_us * vcpus if limits.quota_us else -1
        if self.version == 1:
            found = {"cpu.cfs_period_us": str(period), "cpu.cfs_quota_us": str(quota)}
            return found | ({"cpu.shares": str(limits.shares)} if limits.shares else {})
        found = {"cpu.max": f"{'max' if quota < 0 else quota} {period}"}
        if limits.shares:  # 2 to 262144 become 1 to 10000, as everybody does it
            found["cpu.weight"] = str(1 + (min(max(limits.shares, 2), 262144) - 2) * 9999 // 262142)
        return found


def limit_cpu(name: str, pid: int, limits: CpuLimits, vcpus: int) -> None:
    """Give the machine's process its part of the processors. Raises LaunchFailed where this host cannot."""
    for groups in find_cpu_cgroups():
        try:
            groups.confine(name, pid, limits, vcpus)
        except OSError as error:
            remove_cgroup(name)
            raise LaunchFailed(f"This host cannot limit a machine's processors: {error.strerror}.") from error
        return
    raise LaunchFailed("This host cannot limit a machine's processors: it has no control groups for them.")


def remove_cgroup(name: str) -> None:
    """The group of a machine whose process has ended goes; content if it has none."""
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
    """Below our own group if that is ours to divide, or at the top."""
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
