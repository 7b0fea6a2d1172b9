"""Routes of services: nova-compute of each host, which admins enable, disable and force down."""

import re

from flask import Response, request

from app.core import errors
from app.core.numbers import parse_capped_integer
from app.web.bodies import json_body, parse
from app.web.context import clock, database
from app.web.policy import require
from app.web.responses import empty, json
from compute_api.hosts import hosts, liveness, services
from compute_api.operations import host_removal
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import transaction, version
from compute_api.schemas.hosts import EnableService, ForceServiceDown, UpdateService
from compute_api.views import services as views
from compute_api.views.services import FORCED_DOWN_SINCE, UUID_SINCE


@compute.get("/os-services")
@require("os_compute_api:os-services:list")
def list_services() -> Response:
    list_params.check_known("host", "binary")
    name, binary = request.args.get("host"), request.args.get("binary")
    with database().reading() as session:
        known = hosts.list_hosts(session)
        down_before = liveness.down_before(session, clock().now())
    found = [host for host in known if name in (None, host.name) and binary in (None, services.BINARY)]
    return json({"services": [views.show(host, down_before, version()) for host in found]})


@compute.put("/os-services/<service_id>")
@require("os_compute_api:os-services:update")
def update_service(service_id: str) -> Response:
    if version() < UUID_SINCE:
        return _act_on_service(service_id)
    fields = parse(UpdateService, json_body(), version())
    if not fields.model_fields_set:
        raise errors.BadRequest("Invalid input for field/attribute body. Value: {}. {} does not have enough properties")
    if fields.disabled_reason is not None and fields.status != "disabled":
        raise errors.BadRequest("Specifying disabled_reason requires that status is 'disabled'.")
    with transaction() as session:
        host = services.find(session, _parse_id(service_id))
        if fields.forced_down is not None:
            services.set_forced_down(host, forced_down=fields.forced_down)
        if fields.status is not None:
            services.set_disabled(host, disabled=fields.status == "disabled", reason=fields.disabled_reason)
        return json({"service": views.show(host, liveness.down_before(session, clock().now()), version())})


def _act_on_service(action: str) -> Response:
    """Handle enable, disable, disable-log-reason and force-down, the paths below 2.53."""
    body = json_body()
    if action == "force-down" and version() >= FORCED_DOWN_SINCE:
        down = parse(ForceServiceDown, body)
        with transaction() as session:
            host = services.find_by_name(session, down.host, down.binary)
            services.set_forced_down(host, forced_down=down.forced_down)
        return json({"service": views.forced_down(host)})
    if action not in ("enable", "disable", "disable-log-reason"):
        raise errors.NotFound("Unknown action")
    fields = parse(EnableService, body)
    reason = fields.disabled_reason
    if (action == "disable-log-reason") != (reason is not None):
        raise errors.BadRequest("Missing disabled reason field" if reason is None else "disabled_reason")
    with transaction() as session:
        host = services.find_by_name(session, fields.host, fields.binary)
        services.set_disabled(host, disabled=action != "enable", reason=reason)
    return json({"service": views.enabled(host)})


@compute.delete("/os-services/<service_id>")
@require("os_compute_api:os-services:delete")
def delete_service(service_id: str) -> Response:
    with transaction() as session:
        host_removal.remove(session, clock().now(), services.find(session, _parse_id(service_id)).name)
    return empty()


def _parse_id(service_id: str) -> str | int:
    """Return the UUID, or the number below 2.53. Raises BadRequest."""
    if version() >= UUID_SINCE:
        if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", service_id):
            raise errors.BadRequest(f"Invalid uuid {service_id}")
        return service_id
    try:
        return parse_capped_integer(service_id)
    except ValueError:
        raise errors.BadRequest(f"Invalid input received: id must be an integer: {service_id}") from None
