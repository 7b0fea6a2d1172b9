"""Routes of what belongs to a server: interfaces, groups, volumes, tags, what happened to it, moves."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Response, request
from sqlalchemy import select

from app.core import errors
from app.web.bodies import Body, json_body, parse
from app.web.context import caller, clock, database
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import require
from app.web.responses import empty, json
from compute_api import system_metadata
from compute_api.models import Server, ServerAction
from compute_api.operations import operations
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import transaction, version
from compute_api.schemas.fields import Tag
from compute_api.servers import servers
from compute_api.views.servers import format_microseconds
from network_api.resources import ports

TAGS_SINCE, DELETED_ACTIONS_SINCE, UPDATED_SINCE, HOST_SINCE = v("2.26"), v("2.21"), v("2.58"), v("2.62")
EVENTS_SINCE, EVENT_DETAILS_SINCE, INTERFACE_TAG_SINCE = v("2.51"), v("2.84"), v("2.70")
BEFORE_SINCE = v("2.66")
TAGS_LIMIT = 50


class Tags(Body):
    """PUT of all tags."""

    tags: list[Tag]


@compute.get("/servers/<server_id>/os-security-groups")
@require("os_compute_api:os-security-groups:list")
def list_security_groups(server_id: str) -> Response:
    _find(server_id)
    return json({"security_groups": []})


@compute.get("/servers/<server_id>/os-volume_attachments")
@require("os_compute_api:os-volumes-attachments:index")
def list_volume_attachments(server_id: str) -> Response:
    list_params.check_known("limit", "offset")
    _find(server_id)
    return json({"volumeAttachments": []})


def _find(server_id: str) -> Server:
    with database().reading() as session:
        return servers.find(session, caller(), server_id)


@compute.get("/servers/<server_id>/os-interface")
@require("os_compute_api:os-attach-interfaces:list")
def list_interfaces(server_id: str) -> Response:
    return json({"interfaceAttachments": interfaces(server_id)})


@compute.get("/servers/<server_id>/os-interface/<port_id>")
@require("os_compute_api:os-attach-interfaces:show")
def show_interface(server_id: str, port_id: str) -> Response:
    for interface in interfaces(server_id):
        if interface["port_id"] == port_id:
            return json({"interfaceAttachment": interface})
    raise errors.NotFound(f"Instance {server_id} does not have a port with id {port_id}")


def interfaces(server_id: str) -> list[dict[str, Any]]:
    """The server's interfaces as the API shows them."""
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
        nics = ports.list_nics(session, [server.id]).get(server.id, ())
        tags = system_metadata.nic_tags(server)
    return [
        {
            "port_id": nic.port_id,
            "net_id": nic.network_id,
            "mac_addr": nic.mac,
            "port_state": nic.status,
            "fixed_ips": [
                {"subnet_id": nic.subnet_id, "ip_address": address.split("/")[0]} for address in nic.addresses
            ],
            **({"tag": tags.get(nic.port_id)} if version() >= INTERFACE_TAG_SINCE else {}),
        }
        for nic in nics
    ]


@compute.get("/servers/<server_id>/os-instance-actions")
@require("os_compute_api:os-instance-actions:list")
def list_instance_actions(server_id: str) -> Response:
    paged = version() >= UPDATED_SINCE
    if paged:
        list_params.check_known("limit", "marker", "changes-since", "changes-before")
    since = list_params.parse_time("changes-since") if paged else None
    before = list_params.parse_time("changes-before") if version() >= BEFORE_SINCE else None
    if since and before and since > before:
        raise errors.BadRequest("The value of changes-since must be less than or equal to changes-before.")
    asked = page(request.args)
    with database().reading() as session:
        server = servers.find(session, caller(), server_id, deleted=version() >= DELETED_ACTIONS_SINCE)
        query = select(ServerAction).where(ServerAction.server_id == server.id).order_by(ServerAction.id.desc())
        if paged and asked.marker:
            marked = select(ServerAction.id).where(
                ServerAction.server_id == server.id, ServerAction.request_id == asked.marker
            )
            if (last := session.scalar(marked)) is None:
                raise errors.BadRequest(f"marker [{asked.marker}] not found")
            query = query.where(ServerAction.id < last)
        if since is not None:
            query = query.where(ServerAction.updated_at >= since)
        if before is not None:
            query = query.where(ServerAction.updated_at <= before)
        found = list(session.scalars(query.limit(asked.limit) if paged else query))
    body: dict[str, Any] = {"instanceActions": [_action(action) for action in found]}
    if paged and found and len(found) == asked.limit:
        href = url(f"/compute/v2.1/servers/{server_id}/os-instance-actions?{query_after(found[-1].request_id)}")
        body["links"] = [{"rel": "next", "href": href}]
    return json(body)


def _action(action: ServerAction) -> dict[str, Any]:
    body = {
        "action": action.action,
        "instance_uuid": action.server_id,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": action.project_id,
        "start_time": format_microseconds(action.started_at),
        "message": "Error" if action.message else None,
    }
    if version() >= UPDATED_SINCE:
        body["updated_at"] = format_microseconds(action.updated_at)
    return body


@compute.get("/servers/<server_id>/os-instance-actions/<request_id>")
@require("os_compute_api:os-instance-actions:show")
def show_instance_action(server_id: str, request_id: str) -> Response:
    with database().reading() as session:
        server = servers.find(session, caller(), server_id, deleted=version() >= DELETED_ACTIONS_SINCE)
        query = select(ServerAction).where(ServerAction.server_id == server.id, ServerAction.request_id == request_id)
        action = session.scalar(query)
        asked = operations.list_for_request(session, server.id, request_id)
    if action is None:
        raise errors.NotFound(f"Action for request_id {request_id} on instance {server_id} not found")
    body = _action(action)
    if caller().is_admin or version() >= EVENTS_SINCE:
        tried = [one for one in asked[1:] if one.error]
        host, begun = (asked[0].host, asked[0].created_at) if tried else (action.host, action.started_at)
        last = _Event(host, begun, action.finished_at, action.message)
        before = [_Event(one.host, one.created_at, one.finished_at, one.error) for one in tried]
        body["events"] = [_event(server, action.action, event) for event in (last, *before)]
    return json({"instanceAction": body})


@dataclass(frozen=True, slots=True)
class _Event:
    """One host's part in an action; a message means that it went wrong."""

    host: str | None
    started_at: datetime
    finished_at: datetime | None
    message: str | None


def _event(server: Server, name: str, action: _Event) -> dict[str, Any]:
    finish: datetime | None = action.finished_at
    event: dict[str, Any] = {
        "event": f"compute_{name}",
        "start_time": format_microseconds(action.started_at),
        "finish_time": format_microseconds(finish),
        "result": None if finish is None else "Error" if action.message else "Success",
    }
    if caller().is_admin or version() < EVENTS_SINCE:
        event["traceback"] = None
    if version() >= HOST_SINCE:
        event["hostId"] = servers.host_id(server)
        if caller().is_admin:
            event["host"] = action.host
    if version() >= EVENT_DETAILS_SINCE:
        event["details"] = action.message
    return event


@compute.get("/servers/<server_id>/tags")
@require("os_compute_api:os-server-tags:index")
def list_tags(server_id: str) -> Response:
    _tags_exist()
    return json({"tags": _find(server_id).tags})


@compute.put("/servers/<server_id>/tags")
@require("os_compute_api:os-server-tags:update_all")
def replace_tags(server_id: str) -> Response:
    _tags_exist()
    wanted = sorted(set(parse(Tags, json_body()).tags))
    if len(wanted) > TAGS_LIMIT:
        raise errors.BadRequest(
            f"Invalid input for field/attribute tags. Value: {wanted}. {wanted} is too long: {TAGS_LIMIT} at most"
        )
    _set_tags(server_id, wanted)
    return json({"tags": wanted})


@compute.delete("/servers/<server_id>/tags")
@require("os_compute_api:os-server-tags:delete_all")
def delete_tags(server_id: str) -> Response:
    _tags_exist()
    _set_tags(server_id, [])
    return empty()


@compute.get("/servers/<server_id>/tags/<tag>")
@require("os_compute_api:os-server-tags:show")
def show_tag(server_id: str, tag: str) -> Response:
    _tags_exist()
    if tag not in _find(server_id).tags:
        raise errors.NotFound(f"Server {server_id} has no tag '{tag}'")
    return empty()


@compute.put("/servers/<server_id>/tags/<tag>")
@require("os_compute_api:os-server-tags:update")
def add_tag(server_id: str, tag: str) -> Response:
    _tags_exist()
    if json_body() is not None:
        raise errors.BadRequest("Invalid input for field/attribute body. The tag is in the URL; there is no body.")
    parse(Tags, {"tags": [tag]})
    location = {"Location": url(f"/compute/v2.1/servers/{server_id}/tags/{tag}")}
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        if tag in server.tags:
            return empty(204, location)
        if len(server.tags) >= TAGS_LIMIT:
            raise errors.BadRequest(f"The number of tags exceeded the per-server limit {TAGS_LIMIT}")
        server.tags = sorted([*server.tags, tag])
        server.updated_at = clock().now()
    return empty(201, location)


@compute.delete("/servers/<server_id>/tags/<tag>")
@require("os_compute_api:os-server-tags:delete")
def delete_tag(server_id: str, tag: str) -> Response:
    _tags_exist()
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        if tag not in server.tags:
            raise errors.NotFound(f"Server {server_id} has no tag '{tag}'")
        server.tags = [one for one in server.tags if one != tag]
        server.updated_at = clock().now()
    return empty()


def _set_tags(server_id: str, wanted: list[str]) -> None:
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        server.tags = wanted
        server.updated_at = clock().now()


def _tags_exist() -> None:
    if version() < TAGS_SINCE:
        raise errors.NotFound("The resource could not be found.")
