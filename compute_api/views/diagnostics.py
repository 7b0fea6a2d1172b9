"""Views of server diagnostics: libvirt's counter names below microversion 2.48, Nova's schema from then on."""

from collections.abc import Mapping
from typing import Any

KIB_PER_MIB = 1024


def libvirt_counters(counters: Mapping[str, Any]) -> dict[str, int]:
    """Render counters by the names of Nova's libvirt driver. Memory in KiB."""
    body: dict[str, int] = {f"cpu{number}_time": time for number, time in enumerate(counters["cpu_times"])}
    for disk in counters["disks"]:
        name = disk["name"]
        body[f"{name}_read"] = disk["read_bytes"]
        body[f"{name}_read_req"] = disk["read_requests"]
        body[f"{name}_write"] = disk["write_bytes"]
        body[f"{name}_write_req"] = disk["write_requests"]
        body[f"{name}_errors"] = disk["errors"]
    for number, nic in enumerate(counters["nics"]):
        for counter, suffix in (("octets", ""), ("packets", "_packets"), ("errors", "_errors"), ("drop", "_drop")):
            body[f"vnet{number}_rx{suffix}"] = nic[f"rx_{counter}"]
            body[f"vnet{number}_tx{suffix}"] = nic[f"tx_{counter}"]
    body["memory"] = body["memory-actual"] = counters["memory_mib"] * KIB_PER_MIB
    return body


def show(counters: Mapping[str, Any]) -> dict[str, Any]:
    """Render the schema of 2.48. `driver` is libvirt, the name that clients know for qemu."""
    return {
        "state": "paused" if counters["state"] == "paused" else "running",
        "driver": "libvirt",
        "hypervisor": "qemu",
        "hypervisor_os": "linux",
        "uptime": counters["uptime_seconds"],
        "config_drive": True,
        "num_cpus": len(counters["cpu_times"]),
        "num_nics": len(counters["nics"]),
        "num_disks": len(counters["disks"]),
        "cpu_details": [
            {"id": number, "time": time, "utilisation": None} for number, time in enumerate(counters["cpu_times"])
        ],
        "nic_details": [_nic(nic) for nic in counters["nics"]],
        "disk_details": [
            {
                "read_bytes": disk["read_bytes"],
                "read_requests": disk["read_requests"],
                "write_bytes": disk["write_bytes"],
                "write_requests": disk["write_requests"],
                "errors_count": disk["errors"],
            }
            for disk in counters["disks"]
        ],
        "memory_details": {"maximum": counters["memory_mib"], "used": None},
    }


def _nic(nic: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: value for name, value in nic.items() if name != "mac"}
    return {"mac_address": nic["mac"], **values, "rx_rate": None, "tx_rate": None}
