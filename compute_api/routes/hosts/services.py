"""Routes of services: each host's nova-compute, which admins may drain. 2.11 (forced_down), 2.53 (UUIDs, one PUT)."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from flask import Response, request
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from app.core.numbers import parse_capped_integer
from app.web.bodies import Body, json_body, parse, since
from app.web.context import clock, database
from app.web.microversion import v
from app.web.policy import require
from app.web.responses import empty, json
from compute_api.hosts import hosts, liveness
from compute_api.models import Host
from compute_api.operations import host_removal
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import transaction, version
from compute_api.schemas.fields import Boolean
from compute_api.views.servers import format_microseconds

FORCED_DOWN_SINCE, UUID_SINCE = v("2.11"), v("2.53")
BINARY = "nova-compute"
Reason = Annotated[str, Field(min_length=1, max_length=255)]


class Which(Body):
    """The service of the older calls."""

    host: Annotated[str, Field(min_length=1, max_length=255)]
    binary: Annotated[str, Field(min_length=1, max_length=255)]
    disabled_reason: Reason | None = None


class ForceDown(Body):
    """PUT /os-services/force-down."""

    host: Annotated[str, Field(min_length=1, max_length=255)]
    binary: Annotated[str, Field(min_length=1, max_length=255)]
    forced_down: Boolean = False


class Change(Body):
    """PUT /os-services/{id}."""

    status: Literal["enabled", "disabled"] | None = None
    disabled_reason: Reason | None = None
    forced_down: Annotated[Boolean | None, since("2.53")] = None


@compute.get("/os-services")
@require("os_compute_api:os-services:list")
def list_services() -> Response:
    list_params.check_known("host", "binary")
    host, binary = request.args.get("host"), request.args.get("binary")
    with database().reading() as session:
        known = hosts.list_hosts(session)
        silent_before = liveness.down_before(session, clock().now())
    found = [one for one in known if host in (None, one.name) and binary in (None, BINARY)]
    return json({"services": [_shown(one, silent_before) for one in found]})


@compute.put("/os-services/<service_id>")
@require("os_compute_api:os-services:update")
def update_service(service_id: str) -> Response:
    if version() < UUID_SINCE:
        return _older(service_id)
    asked = parse(Change, json_body(), version())
    if not asked.model_fields_set:
        raise errors.BadRequest("Invalid input for field/attribute body. Value: {}. {} does not have enough properties")
    if asked.disabled_reason is not None and asked.status != "disabled":
        raise errors.BadRequest("Specifying disabled_reason requires that status is 'disabled'.")
    with transaction() as session:
        host = _find(session, service_id)
        if asked.forced_down is not None:
            host.forced_down = asked.forced_down
        if asked.status is not None:
            host.disabled = asked.status == "disabled"
            host.disabled_reason = asked.disabled_reason
        return json({"service": _shown(host, liveness.down_before(session, clock().now()))})


def _older(action: str) -> Response:
    """enable, disable, disable-log-reason and force-down, as they were called until 2.52."""
    body = json_body()
    if action == "force-down" and version() >= FORCED_DOWN_SINCE:
        down = parse(ForceDown, body)
        with transaction() as session:
            host = _named(session, down.host, down.binary)
            host.forced_down = down.forced_down
        return json({"service": {"host": host.name, "binary": BINARY, "forced_down": host.forced_down}})
    if action not in ("enable", "disable", "disable-log-reason"):
        raise errors.NotFound("Unknown action")
    asked = parse(Which, body)
    if (action == "disable-log-reason") != (asked.disabled_reason is not None):
        raise errors.BadRequest("Missing disabled reason field" if asked.disabled_reason is None else "disabled_reason")
    with transaction() as session:
        host = _named(session, asked.host, asked.binary)
        host.disabled = action != "enable"
        host.disabled_reason = asked.disabled_reason
    shown: dict[str, Any] = {
        "host": host.name,
        "binary": BINARY,
        "status": "disabled" if host.disabled else "enabled",
    }
    if asked.disabled_reason is not None:
        shown["disabled_reason"] = asked.disabled_reason
    return json({"service": shown})


@compute.delete("/os-services/<service_id>")
@require("os_compute_api:os-services:delete")
def delete_service(service_id: str) -> Response:
    with transaction() as session:
        host_removal.remove(session, clock().now(), _find(session, service_id).name)
    return empty()


def _find(session: Session, service_id: str) -> Host:
    if version() >= UUID_SINCE:
        if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", service_id):
            raise errors.BadRequest(f"Invalid uuid {service_id}")
        found = session.scalar(select(Host).where(Host.id == service_id.lower()))
    else:
        try:
            number = parse_capped_integer(service_id)
        except ValueError:
            raise errors.BadRequest(f"Invalid input received: id must be an integer: {service_id}") from None
        found = session.scalar(select(Host).where(Host.seq == number))
    if found is None:
        raise errors.NotFound(f"Service {service_id} could not be found.")
    return found


def _named(session: Session, name: str, binary: str) -> Host:
    found = session.scalar(select(Host).where(Host.name == name))
    if found is None or binary != BINARY:
        raise errors.NotFound(f"Could not find binary {binary} on host {name}.")
    return found


def _shown(host: Host, silent_before: datetime) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": host.id if version() >= UUID_SINCE else host.seq,
        "binary": BINARY,
        "host": host.name,
        "zone": host.zone,
        "status": "disabled" if host.disabled else "enabled",
        "state": "up" if hosts.is_up(host, silent_before) else "down",
        "updated_at": format_microseconds(host.last_seen),
        "disabled_reason": host.disabled_reason,
    }
    if version() >= FORCED_DOWN_SINCE:
        body["forced_down"] = host.forced_down
    return body
