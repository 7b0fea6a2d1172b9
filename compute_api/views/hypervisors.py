"""Views of hypervisors, one for each host."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from app.web.microversion import Version, v
from compute_api.hosts import hosts
from compute_api.hosts.load import HostLoad, ServerName
from compute_api.models import Host

CPU_OBJECT_SINCE, UUID_SINCE, USAGE_UNTIL = v("2.28"), v("2.53"), v("2.87")
STATISTICS = (
    "vcpus", "vcpus_used", "memory_mb", "memory_mb_used", "local_gb", "local_gb_used", "free_ram_mb", "free_disk_gb",
    "disk_available_least", "current_workload", "running_vms",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class HypervisorContext:
    """Everything besides the host that a response depends on.

    A host is down when its last heartbeat is older than `down_before`. `uptime` is known of the API's own host only.
    """

    version: Version
    down_before: datetime
    host_ip: str = ""
    loads: Mapping[str, HostLoad] = field(default_factory=dict)
    uptimes: Mapping[str, str] = field(default_factory=dict)


def identify(host: Host, version: Version) -> int | str:
    """Return the hypervisor's id: a UUID from 2.53 on, a number below."""
    return host.id if version >= UUID_SINCE else host.seq


def brief(host: Host, context: HypervisorContext) -> dict[str, Any]:
    """Render an entry of GET /os-hypervisors."""
    return {
        "id": identify(host, context.version),
        "hypervisor_hostname": host.name,
        "state": "up" if hosts.is_up(host, context.down_before) else "down",
        "status": "disabled" if host.disabled else "enabled",
    }


def show(host: Host, context: HypervisorContext) -> dict[str, Any]:
    """Render a hypervisor with all fields. Resource usage ends with 2.87."""
    body = brief(host, context)
    body["hypervisor_type"] = "QEMU"
    body["hypervisor_version"] = host.hypervisor_version
    body["host_ip"] = context.host_ip
    body["service"] = {
        "id": identify(host, context.version),
        "host": host.name,
        "disabled_reason": host.disabled_reason,
    }
    if context.version > USAGE_UNTIL:
        body["uptime"] = context.uptimes.get(host.name)
        return body
    body |= usage(host, context.loads.get(host.name, HostLoad()))
    cpu = {"model": host.cpu_model, "accelerator": host.accelerator}
    body["cpu_info"] = cpu if context.version >= CPU_OBJECT_SINCE else orjson.dumps(cpu).decode()
    return body


def usage(host: Host, load: HostLoad) -> dict[str, int]:
    """Render capacity, claimed resources and load of a host."""
    return {
        "vcpus": host.vcpus,
        "vcpus_used": host.vcpus_used,
        "memory_mb": host.memory_mib,
        "memory_mb_used": host.memory_mib_used,
        "local_gb": host.disk_gib,
        "local_gb_used": host.disk_gib_used,
        "free_ram_mb": host.memory_mib - host.memory_mib_used,
        "free_disk_gb": host.disk_gib - host.disk_gib_used,
        "disk_available_least": 0 if host.disk_is_low else host.disk_gib_limit - host.disk_gib_used,
        "current_workload": load.busy,
        "running_vms": load.running,
    }


def statistics(known: Sequence[Host], loads: Mapping[str, HostLoad]) -> dict[str, int]:
    """Render the sums over all hosts."""
    rows = [usage(host, loads.get(host.name, HostLoad())) for host in known]
    return {"count": len(known), **{name: sum(row[name] for row in rows) for name in STATISTICS}}


def servers(names: Sequence[ServerName]) -> list[dict[str, str]]:
    """Render the servers of a hypervisor."""
    return [{"uuid": server.id, "name": server.name} for server in names]
