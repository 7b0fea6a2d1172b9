"""Routes of hosts as Nova had them until 2.42: names, zones, what is used. Later clients ask for hypervisors."""

from typing import Annotated, Any, Literal

from flask import Response, request
from pydantic import BeforeValidator
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from app.web.bodies import Body, json_body, parse
from app.web.context import database
from app.web.microversion import v
from app.web.policy import require
from app.web.responses import json
from compute_api.hosts import hosts
from compute_api.models import Host, Server
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import transaction, version

UNTIL = v("2.42")
Switch = Annotated[
    Literal["enable", "disable"], BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
]


class Change(Body):
    """PUT /os-hosts/{name}."""

    status: Switch | None = None
    maintenance_mode: Switch | None = None


@compute.get("/os-hosts")
@require("os_compute_api:os-hosts:list")
def list_os_hosts() -> Response:
    _check_version()
    zone = request.args.get("zone", "")
    with database().reading() as session:
        known = [host for host in hosts.list_hosts(session) if zone in ("", host.zone)]
    return json({"hosts": [{"host_name": host.name, "service": "compute", "zone": host.zone} for host in known]})


@compute.get("/os-hosts/<name>")
@require("os_compute_api:os-hosts:show")
def show_os_host(name: str) -> Response:
    """What the host has, what is claimed of it, and how much of that by each project's servers."""
    _check_version()
    with database().reading() as session:
        host = _find(session, name)
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


@compute.put("/os-hosts/<name>")
@require("os_compute_api:os-hosts:update")
def update_os_host(name: str) -> Response:
    """As `openstack compute service set`: a host that is disabled gets no new servers."""
    _check_version()
    asked = parse(Change, json_body())
    if not asked.model_fields_set:
        raise errors.BadRequest("Invalid input for field/attribute body. Value: {}. {} does not have enough properties")
    with transaction() as session:
        host = _find(session, name)
        if asked.maintenance_mode is not None or asked.status is None:
            raise errors.NotSupported("Virt driver does not implement host maintenance mode.")
        host.disabled, host.disabled_reason = asked.status == "disable", None
    return json({"host": name, "status": f"{asked.status}d"})


@compute.get("/os-hosts/<name>/startup")
@compute.get("/os-hosts/<name>/shutdown")
@compute.get("/os-hosts/<name>/reboot")
@require("os_compute_api:os-hosts:update")
def switch_os_host(name: str) -> Response:
    _check_version()
    with database().reading() as session:
        _find(session, name)
    raise errors.NotSupported("Virt driver does not implement host power management.")


def _find(session: Session, name: str) -> Host:
    host = hosts.find(session, name)
    if host.name != name:
        raise errors.NotFound(f"Compute host {name} could not be found.")
    return host


def _resource(host: str, project: str, cpu: int, memory_mib: int, disk_gib: int) -> dict[str, Any]:
    return {"host": host, "project": project, "cpu": cpu, "memory_mb": memory_mib, "disk_gb": disk_gib}


def _check_version() -> None:
    if version() > UNTIL:
        raise errors.NotFound("The resource could not be found.")
