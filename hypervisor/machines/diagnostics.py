"""Diagnostics of a running machine: qemu block statistics, CPU times of vCPU threads, tap counters."""

import os
import re
import time
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient

from hypervisor.api.spec import Diagnostics, DiskCounters, MachineSpec, NicCounters
from hypervisor.network.links import Links
from hypervisor.qemu import qmp

NANOSECONDS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def query_diagnostics(control: Path, pid: int, spec: MachineSpec, links: Links, started_at: float) -> Diagnostics:
    """Query qemu, /proc and the taps. Raises HypervisorError when qemu does not answer."""

    async def converse(client: QMPClient) -> tuple[Any, Any, Any]:
        return (
            await client.execute("query-status"),
            await client.execute("query-cpus-fast"),
            await client.execute("query-blockstats"),
        )

    status, processors, devices = qmp.run_session(control, converse)
    taps = _read_link_counters()
    return Diagnostics(
        state=str(status["status"]),
        uptime_seconds=max(0, int(time.time() - started_at)),
        memory_mib=spec.memory_mib,
        cpu_times=tuple(_thread_nanoseconds(pid, processor["thread-id"]) for processor in processors),
        nics=tuple(_nic_counters(nic.mac, taps.get(links.tap(nic.port_id))) for nic in spec.nics),
        disks=tuple(_disk_counters(device) for device in devices if "disk" in device.get("qdev", "")),
    )


def _thread_nanoseconds(pid: int, thread: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) * NANOSECONDS_PER_TICK


def _disk_counters(device: dict[str, Any]) -> DiskCounters:
    found = re.search(r"disk(\d+)", device["qdev"])
    stats = device["stats"]
    return DiskCounters(
        name=f"vd{chr(ord('a') + int(found[1]))}" if found else "disk",
        read_bytes=stats["rd_bytes"],
        read_requests=stats["rd_operations"],
        write_bytes=stats["wr_bytes"],
        write_requests=stats["wr_operations"],
        errors=stats["failed_rd_operations"] + stats["failed_wr_operations"],
    )


def _read_link_counters() -> dict[str, list[int]]:
    """Return the counters of each link in /proc/net/dev: eight for received, then eight for sent packets."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    return {name.strip(): [int(word) for word in rest.split()] for name, _, rest in (x.partition(":") for x in lines)}


def _nic_counters(mac: str, tap: list[int] | None) -> NicCounters:
    """Swap directions: a tap receives what the guest sends."""
    if tap is None:
        return NicCounters(mac=mac)
    return NicCounters(
        mac=mac,
        tx_octets=tap[0],
        tx_packets=tap[1],
        tx_errors=tap[2],
        tx_drop=tap[3],
        rx_octets=tap[8],
        rx_packets=tap[9],
        rx_errors=tap[10],
        rx_drop=tap[11],
    )
