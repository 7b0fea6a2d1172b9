"""What a running machine has counted → what the API shows of it: by name below 2.48, in a schema from then on."""

from collections.abc import Mapping
from typing import Any

KIB_PER_MIB = 1024


def libvirt_counters(counted: Mapping[str, Any]) -> dict[str, int]:
    """One number for each name, as libvirt's driver in Nova has them. Memory in KiB."""
    shown: dict[str, int] = {f"cpu{number}_time": time for number, time in enumerate(counted["cpu_times"])}
    for disk in counted["disks"]:
        name = disk["name"]
        shown[f"{name}_read"] = disk["read_bytes"]
        shown[f"{name}_read_req"] = disk["read_requests"]
        shown[f"{name}_write"] = disk["write_bytes"]
        shown[f"{name}_write_req"] = disk["write_requests"]
        shown[f"{name}_errors"] = disk["errors"]
    for number, nic in enumerate(counted["nics"]):
        for ours, word in (("octets", ""), ("packets", "_packets"), ("errors", "_errors"), ("drop", "_drop")):
            shown[f"vnet{number}_rx{word}"] = nic[f"rx_{ours}"]
            shown[f"vnet{number}_tx{word}"] = nic[f"tx_{ours}"]
    shown["memory"] = shown["memory-actual"] = counted["memory_mib"] * KIB_PER_MIB
    return shown


def show(counted: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of 2.48. `driver` is the word that clients know for qemu."""
    return {
        "state": "paused" if counted["state"] == "paused" else "running",
        "driver": "libvirt",
        "hypervisor": "qemu",
        "hypervisor_os": "linux",
        "uptime": counted["uptime_seconds"],
        "config_drive": True,
        "num_cpus": len(counted["cpu_times"]),
        "num_nics": len(counted["nics"]),
        "num_disks": len(counted["disks"]),
        "cpu_details": [
            {"id": number, "time": time, "utilisation": None} for number, time in enumerate(counted["cpu_times"])
        ],
        "nic_details": [_nic(nic) for nic in counted["nics"]],
        "disk_details": [
            {
                "read_bytes": disk["read_bytes"],
                "read_requests": disk["read_requests"],
                "write_bytes": disk["write_bytes"],
                "write_requests": disk["write_requests"],
                "errors_count": disk["errors"],
            }
            for disk in counted["disks"]
        ],
        "memory_details": {"maximum": counted["memory_mib"], "used": None},
    }


def _nic(nic: Mapping[str, Any]) -> dict[str, Any]:
    counters = {name: value for name, value in nic.items() if name != "mac"}
    return {"mac_address": nic["mac"], **counters, "rx_rate": None, "tx_rate": None}
