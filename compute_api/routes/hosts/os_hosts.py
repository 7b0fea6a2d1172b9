"""Routes of os-hosts (until microversion 2.42): names, zones and resource usage of hosts."""

from typing import Any

from flask import Response, request

from app.core import errors
from app.web.bodies import json_body, parse
from app.web.context import database
from app.web.microversion import v
from app.web.policy import require
from app.web.responses import json
from compute_api.hosts import hosts, load, services
from compute_api.hosts.load import Resources
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import check_available, transaction
from compute_api.schemas.hosts import UpdateHost

UNTIL = v("2.42")


@compute.get("/os-hosts")
@require("os_compute_api:os-hosts:list")
def list_os_hosts() -> Response:
    check_available(until=UNTIL)
    zone = request.args.get("zone", "")
    with database().reading() as session:
        known = [host for host in hosts.list_hosts(session) if zone in ("", host.zone)]
    return json({"hosts": [{"host_name": host.name, "service": "compute", "zone": host.zone} for host in known]})


@compute.get("/os-hosts/<name>")
@require("os_compute_api:os-hosts:show")
def show_os_host(name: str) -> Response:
    """Show capacity and claimed resources of a host, and the resources of each project's servers."""
    check_available(until=UNTIL)
    with database().reading() as session:
        host = hosts.find_by_name(session, name)
        by_project = load.sum_by_project(session, host)
    rows = {
        "(total)": Resources(host.vcpus, host.memory_mib, host.disk_gib),
        "(used_now)": Resources(host.vcpus_used, host.memory_mib_used, host.disk_gib_used),
        "(used_max)": Resources(*(sum(used[column] for used in by_project.values()) for column in range(3))),
        **by_project,
    }
    return json({"host": [{"resource": _resource(name, project, row)} for project, row in rows.items()]})


@compute.put("/os-hosts/<name>")
@require("os_compute_api:os-hosts:update")
def update_os_host(name: str) -> Response:
    """Enable or disable scheduling to a host, as `openstack compute service set` does."""
    check_available(until=UNTIL)
    fields = parse(UpdateHost, json_body())
    if not fields.model_fields_set:
        raise errors.BadRequest("Invalid input for field/attribute body. Value: {}. {} does not have enough properties")
    with transaction() as session:
        host = hosts.find_by_name(session, name)
        if fields.maintenance_mode is not None or fields.status is None:
            raise errors.NotSupported("Virt driver does not implement host maintenance mode.")
        services.set_disabled(host, disabled=fields.status == "disable", reason=None)
    return json({"host": name, "status": f"{fields.status}d"})


@compute.get("/os-hosts/<name>/startup")
@compute.get("/os-hosts/<name>/shutdown")
@compute.get("/os-hosts/<name>/reboot")
@require("os_compute_api:os-hosts:update")
def switch_os_host(name: str) -> Response:
    check_available(until=UNTIL)
    with database().reading() as session:
        hosts.find_by_name(session, name)
    raise errors.NotSupported("Virt driver does not implement host power management.")


def _resource(host: str, project: str, row: Resources) -> dict[str, Any]:
    return {"host": host, "project": project, "cpu": row.vcpus, "memory_mb": row.memory_mib, "disk_gb": row.disk_gib}
