"""Views of usage reports (os-simple-tenant-usage)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from compute_api.usage import ProjectTotal, ServerUsage
from compute_api.views.servers import format_microseconds

HOUR = 3_600_000_000
"""Microseconds."""


def show(
    total: ProjectTotal, start: datetime, stop: datetime, servers: Sequence[ServerUsage] | None = None
) -> dict[str, Any]:
    """Render the usage of a project in hours, with its servers unless they are None."""
    body: dict[str, Any] = {
        "tenant_id": total.project_id,
        "start": format_microseconds(start),
        "stop": format_microseconds(stop),
        "total_hours": total.servers / HOUR,
        "total_vcpus_usage": total.vcpus / HOUR,
        "total_memory_mb_usage": total.ram_mib / HOUR,
        "total_local_gb_usage": total.disk_gib / HOUR,
    }
    if servers is not None:
        body["server_usages"] = [_server(server) for server in servers]
    return body


def _server(usage: ServerUsage) -> dict[str, Any]:
    return {
        "instance_id": usage.id,
        "tenant_id": usage.project_id,
        "name": usage.name,
        "flavor": usage.flavor["name"],
        "vcpus": usage.flavor["vcpus"],
        "memory_mb": usage.flavor["ram"],
        "local_gb": usage.disk_gib,
        "hours": usage.hours,
        "uptime": usage.uptime_seconds,
        "started_at": format_microseconds(usage.started_at),
        "ended_at": format_microseconds(usage.ended_at),
        "state": usage.vm_state,
    }
