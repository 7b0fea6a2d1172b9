"""Routes of subresources of servers: interfaces, security groups, volume attachments, action log and tags."""

from http import HTTPStatus
from typing import Any

from flask import Response, request

from app.core import errors
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import require
from app.web.responses import empty, json
from compute_api import system_metadata
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import check_available, transaction, version
from compute_api.schemas.servers import Tags
from compute_api.servers import action_log, attributes, servers
from compute_api.servers.action_log import ActionFilter
from compute_api.servers.attributes import TAGS_LIMIT
from compute_api.views import action_log as action_views
from compute_api.views import interfaces as interface_views
from network_api.resources import ports

TAGS_SINCE, DELETED_ACTIONS_SINCE, ACTION_PAGES_SINCE, BEFORE_SINCE = v("2.26"), v("2.21"), v("2.58"), v("2.66")


@compute.get("/servers/<server_id>/os-security-groups")
@require("os_compute_api:os-security-groups:list")
def list_security_groups(server_id: str) -> Response:
    with database().reading() as session:
        servers.find(session, caller(), server_id)
    return json({"security_groups": []})


@compute.get("/servers/<server_id>/os-volume_attachments")
@require("os_compute_api:os-volumes-attachments:index")
def list_volume_attachments(server_id: str) -> Response:
    list_params.check_known("limit", "offset")
    with database().reading() as session:
        servers.find(session, caller(), server_id)
    return json({"volumeAttachments": []})


@compute.get("/servers/<server_id>/os-interface")
@require("os_compute_api:os-attach-interfaces:list")
def list_interfaces(server_id: str) -> Response:
    return json({"interfaceAttachments": render_interfaces(server_id)})


@compute.get("/servers/<server_id>/os-interface/<port_id>")
@require("os_compute_api:os-attach-interfaces:show")
def show_interface(server_id: str, port_id: str) -> Response:
    for interface in render_interfaces(server_id):
        if interface["port_id"] == port_id:
            return json({"interfaceAttachment": interface})
    raise errors.NotFound(f"Instance {server_id} does not have a port with id {port_id}")


def render_interfaces(server_id: str) -> list[dict[str, Any]]:
    """Render the server's interfaces. Raises NotFound."""
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
        nics = ports.list_nics(session, [server.id]).get(server.id, ())
        tags = system_metadata.nic_tags(server)
    return [interface_views.show(nic, tags, version()) for nic in nics]


@compute.get("/servers/<server_id>/os-instance-actions")
@require("os_compute_api:os-instance-actions:list")
def list_instance_actions(server_id: str) -> Response:
    is_paged = version() >= ACTION_PAGES_SINCE
    if is_paged:
        list_params.check_known("limit", "marker", "changes-since", "changes-before")
    since = list_params.parse_time("changes-since") if is_paged else None
    before = list_params.parse_time("changes-before") if version() >= BEFORE_SINCE else None
    if since and before and since > before:
        raise errors.BadRequest("The value of changes-since must be less than or equal to changes-before.")
    paging = page(request.args)
    filters = ActionFilter(
        changed_since=since,
        changed_before=before,
        limit=paging.limit if is_paged else None,
        marker=paging.marker if is_paged else None,
    )
    with database().reading() as session:
        server = servers.find(session, caller(), server_id, deleted=version() >= DELETED_ACTIONS_SINCE)
        found = action_log.list_actions(session, server, filters)
    body: dict[str, Any] = {"instanceActions": [action_views.entry(action, version()) for action in found]}
    if is_paged and found and len(found) == paging.limit:
        href = url(f"/compute/v2.1/servers/{server_id}/os-instance-actions?{query_after(found[-1].request_id)}")
        body["links"] = [{"rel": "next", "href": href}]
    return json(body)


@compute.get("/servers/<server_id>/os-instance-actions/<request_id>")
@require("os_compute_api:os-instance-actions:show")
def show_instance_action(server_id: str, request_id: str) -> Response:
    with database().reading() as session:
        server = servers.find(session, caller(), server_id, deleted=version() >= DELETED_ACTIONS_SINCE)
        action, events = action_log.find_action(session, server, request_id)
    return json({"instanceAction": action_views.show(server, action, events, version(), caller())})


@compute.get("/servers/<server_id>/tags")
@require("os_compute_api:os-server-tags:index")
def list_tags(server_id: str) -> Response:
    check_available(since=TAGS_SINCE)
    with database().reading() as session:
        return json({"tags": servers.find(session, caller(), server_id).tags})


@compute.put("/servers/<server_id>/tags")
@require("os_compute_api:os-server-tags:update_all")
def replace_tags(server_id: str) -> Response:
    check_available(since=TAGS_SINCE)
    tags = sorted(set(parse(Tags, json_body()).tags))
    if len(tags) > TAGS_LIMIT:
        raise errors.BadRequest(
            f"Invalid input for field/attribute tags. Value: {tags}. {tags} is too long: {TAGS_LIMIT} at most"
        )
    _set_tags(server_id, tags)
    return json({"tags": tags})


@compute.delete("/servers/<server_id>/tags")
@require("os_compute_api:os-server-tags:delete_all")
def delete_tags(server_id: str) -> Response:
    check_available(since=TAGS_SINCE)
    _set_tags(server_id, [])
    return empty()


@compute.get("/servers/<server_id>/tags/<tag>")
@require("os_compute_api:os-server-tags:show")
def show_tag(server_id: str, tag: str) -> Response:
    check_available(since=TAGS_SINCE)
    with database().reading() as session:
        tags = servers.find(session, caller(), server_id).tags
    if tag not in tags:
        raise errors.NotFound(f"Server {server_id} has no tag '{tag}'")
    return empty()


@compute.put("/servers/<server_id>/tags/<tag>")
@require("os_compute_api:os-server-tags:update")
def add_tag(server_id: str, tag: str) -> Response:
    check_available(since=TAGS_SINCE)
    if json_body() is not None:
        raise errors.BadRequest("Invalid input for field/attribute body. The tag is in the URL; there is no body.")
    parse(Tags, {"tags": [tag]})
    location = {"Location": url(f"/compute/v2.1/servers/{server_id}/tags/{tag}")}
    with transaction() as session:
        is_new = attributes.add_tag(clock().now(), servers.find(session, caller(), server_id), tag)
    return empty(HTTPStatus.CREATED if is_new else HTTPStatus.NO_CONTENT, location)


@compute.delete("/servers/<server_id>/tags/<tag>")
@require("os_compute_api:os-server-tags:delete")
def delete_tag(server_id: str, tag: str) -> Response:
    check_available(since=TAGS_SINCE)
    with transaction() as session:
        attributes.remove_tag(clock().now(), servers.find(session, caller(), server_id), tag)
    return empty()


def _set_tags(server_id: str, tags: list[str]) -> None:
    with transaction() as session:
        attributes.set_tags(clock().now(), servers.find(session, caller(), server_id), tags)
