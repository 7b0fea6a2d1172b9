"""Routes of hosts as Nova listed them until 2.42: names, zones and what is used. Later clients ask for hypervisors."""

from typing import Any

from flask import Response, request
from sqlalchemy import select

from app import errors
from app.web.context import database
from app.web.microversion import v
from app.web.policy import require
from app.web.responses import json
from compute_api import hosts
from compute_api.models import Server
from compute_api.routes.blueprint import compute
from compute_api.routes.context import version

UNTIL = v("2.42")


@compute.get("/os-hosts")
@require("os_compute_api:os-hosts:list")
def list_os_hosts() -> Response:
    _check_version()
    zone = request.args.get("zone", "")
    with database().reading() as session:
        known = [host for host in hosts.listed(session) if zone in ("", host.zone)]
    return json({"hosts": [{"host_name": host.name, "service": "compute", "zone": host.zone} for host in known]})


@compute.get("/os-hosts/<name>")
@require("os_compute_api:os-hosts:show")
def show_os_host(name: str) -> Response:
    """What the host has, what is claimed of it, and how much of that by each project's servers."""
    _check_version()
    with database().reading() as session:
        host = hosts.find(session, name)
        if host.name != name:
            raise errors.NotFound(f"Compute host {name} could not be found.")
        servers = session.execute(
            select(Server.project_id, Server.flavor).where(Server.host == name, Server.deleted.is_(False))
        ).all()
    claimed: dict[str, tuple[int, int, int]] = {}
    for project, flavor in servers:
        cpu, memory_mib, disk_gib = claimed.get(project, (0, 0, 0))
        disk_gib += flavor["disk"] + flavor["ephemeral"]
        claimed[project] = cpu + flavor["vcpus"], memory_mib + flavor["ram"], disk_gib
    used = tuple(sum(one[at] for one in claimed.values()) for at in range(3))
    rows = {
        "(total)": (host.vcpus, host.memory_mib, host.disk_gib),
        "(used_now)": (host.vcpus_used, host.memory_mib_used, host.disk_gib_used),
        "(used_max)": used,
        **claimed,
    }
    return json({"host": [{"resource": _resource(name, project, *row)} for project, row in rows.items()]})


def _resource(host: str, project: str, cpu: int, memory_mib: int, disk_gib: int) -> dict[str, Any]:
    return {"host": host, "project": project, "cpu": cpu, "memory_mb": memory_mib, "disk_gb": disk_gib}


def _check_version() -> None:
    if version() > UNTIL:
        raise errors.NotFound("The resource could not be found.")
