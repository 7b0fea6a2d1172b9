"""Routes of servers themselves: create, list, show, change, delete, metadata, tags and addresses."""

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

from flask import Response, request
from oslo_utils import timeutils
from sqlalchemy.orm import Session

from app import errors
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import enforce, require
from app.web.responses import empty, json
from compute_api import server_lists, servers, states
from compute_api.models import Server
from compute_api.routes.blueprint import compute
from compute_api.routes.context import request_id, transaction, version
from compute_api.schemas.servers import CreateServer, MetaBody, MetadataBody, UpdateServer
from compute_api.server_lists import Wanted
from compute_api.views import servers as views
from network_api import ports

NETWORKS_REQUIRED, STRICT_STATUS, STRICT_QUERY = v("2.37"), v("2.38"), v("2.75")

FILTERS = {
    "image": "image_id",
    "flavor": "flavor_id",
    "uuid": "id",
    "reservation_id": "reservation_id",
    "launch_index": "launch_index",
}
"""Filters for everybody that are one column."""

ADMIN_FILTERS = {
    "host": "host",
    "node": "host",
    "user_id": "user_id",
    "availability_zone": "availability_zone",
    "vm_state": "vm_state",
    "task_state": "task_state",
    "power_state": "power_state",
    "hostname": "hostname",
    "description": "description",
}
"""Filters for admins that are one column; others' are passed over, as in Nova below 2.83."""


@compute.post("/servers")
@compute.post("/os-volumes_boot")
@require("os_compute_api:servers:create")
def create_server() -> Response:
    body = parse(CreateServer, json_body(), version())
    if version() >= NETWORKS_REQUIRED and body.server.networks is None:
        raise errors.BadRequest("Invalid input for field/attribute server. 'networks' is a required property")
    new = body.new_server()
    if version() < NETWORKS_REQUIRED and isinstance(body.server.networks, str):
        raise errors.BadRequest(
            f"Invalid input for field/attribute networks. Value: {body.server.networks}. It is not of type 'array'"
        )
    if new.host:
        enforce("os_compute_api:servers:create:forced_host")
    with transaction() as session:
        made = servers.create(session, clock().now(), caller(), new, request_id())
        shown = views.created(made)
    if body.server.return_reservation_id:
        return json({"reservation_id": made.reservation_id}, HTTPStatus.ACCEPTED)
    location = {"Location": url(f"/compute/v2.1/servers/{made.servers[0].id}")}
    return json(shown, HTTPStatus.ACCEPTED, location)


@compute.get("/servers")
@require("os_compute_api:servers:index")
def list_servers() -> Response:
    with database().reading() as session:
        wanted = _wanted("index")
        found = server_lists.listed(session, wanted)
        return _page("/servers", found, [views.brief(server) for server in found], wanted)


@compute.get("/servers/detail")
@require("os_compute_api:servers:detail")
def list_servers_detail() -> Response:
    with database().reading() as session:
        wanted = _wanted("detail")
        found = server_lists.listed(session, wanted)
        nics = ports.nics_of(session, [server.id for server in found])
        shown = [views.show(one, nics.get(one.id, ()), version(), caller(), single=False) for one in found]
        return _page("/servers/detail", found, shown, wanted)


def _page(path: str, found: Sequence[Server], shown: list[dict[str, Any]], wanted: Wanted) -> Response:
    body: dict[str, Any] = {"servers": shown}
    if found and len(found) == wanted.limit:
        href = url(f"/compute/v2.1{path}?{query_after(found[-1].id)}")
        body["servers_links"] = [{"rel": "next", "href": href}]
    return json(body)


def _wanted(rule: str) -> Wanted:
    arguments = request.args
    asked = page(arguments)
    admin = caller().is_admin
    project: str | None = caller().project
    if _true(arguments.get("all_tenants", arguments.get("all_projects", "0"))):
        enforce(f"os_compute_api:servers:{rule}:get_all_tenants")
        project = arguments.get("project_id") or arguments.get("tenant_id")
    elif admin and (other := arguments.get("project_id") or arguments.get("tenant_id")) and _all_tenants_given():
        project = other
    since, before = _time("changes-since"), _time("changes-before")
    deleted: bool | None = False
    if "deleted" in arguments and admin:
        deleted = _true(arguments["deleted"])
    elif since is not None:
        deleted = None
    statuses = tuple(arguments.getlist("status"))
    if any(status.lower() == "deleted" for status in statuses):
        if not admin:
            raise errors.Forbidden("Only administrators may list deleted instances")
        deleted = True
    _check_statuses(statuses)
    equal: dict[str, Any] = {FILTERS[name]: arguments[name] for name in FILTERS if arguments.get(name)}
    if admin or version() >= v("2.83"):
        equal |= {ADMIN_FILTERS[name]: arguments[name] for name in ADMIN_FILTERS if arguments.get(name)}
    if "locked" in arguments and version() >= v("2.73"):
        equal["locked"] = _true(arguments["locked"])
    return Wanted(
        project_id=project,
        deleted=deleted,
        name=arguments.get("name"),
        statuses=statuses,
        equal=equal,
        ip6=arguments.get("ip6") if admin or version() >= v("2.5") else None,
        ip=arguments.get("ip"),
        changed_since=since,
        changed_before=before,
        sort=_sort(),
        limit=asked.limit,
        marker=asked.marker,
    )


def _all_tenants_given() -> bool:
    return "all_tenants" in request.args


def _true(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("", "1", "t", "true", "on", "y", "yes"):
        return True
    if lowered in ("0", "f", "false", "off", "n", "no"):
        return False
    raise errors.BadRequest(f"Invalid value '{text}': it is neither true nor false")


def _check_statuses(statuses: Sequence[str]) -> None:
    unknown = [status for status in statuses if not states.vm_states_of(status) and not states.tasks_of(status)]
    if unknown and version() >= STRICT_STATUS:
        raise errors.BadRequest(f"Invalid status value: {', '.join(unknown)}")


def _time(name: str) -> datetime | None:
    text = request.args.get(name)
    if text is None:
        return None
    try:
        moment = timeutils.parse_isotime(text)
    except ValueError:
        raise errors.BadRequest(f"Invalid input for query parameters {name}. Value: {text}. It is no time.") from None
    assert isinstance(moment, datetime)
    return moment


def _sort() -> tuple[tuple[str, bool], ...]:
    keys = request.args.getlist("sort_key") or ["created_at"]
    directions = request.args.getlist("sort_dir")
    if any(direction not in ("asc", "desc") for direction in directions):
        raise errors.BadRequest("Invalid input for query parameters sort_dir. It is asc or desc.")
    first = directions[0] if directions else "desc"
    directions += [first] * (len(keys) - len(directions))
    return tuple((key, direction == "desc") for key, direction in zip(keys, directions, strict=False))


@compute.get("/servers/<server_id>")
@require("os_compute_api:servers:show")
def show_server(server_id: str) -> Response:
    with database().reading() as session:
        return _one(session, servers.find(session, caller(), server_id))


def _one(session: Session, server: Server, status: int = HTTPStatus.OK) -> Response:
    nics = ports.nics_of(session, [server.id]).get(server.id, ())
    return json({"server": views.show(server, nics, version(), caller())}, status)


@compute.put("/servers/<server_id>")
@require("os_compute_api:servers:update")
def update_server(server_id: str) -> Response:
    asked = parse(UpdateServer, json_body(), version()).server
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        for name in asked.model_fields_set:
            value = getattr(asked, name)
            if value is not None or name == "description":
                setattr(server, name, value)
        server.updated_at = clock().now()
        return _one(session, server)


@compute.delete("/servers/<server_id>")
@require("os_compute_api:servers:delete")
def delete_server(server_id: str) -> Response:
    with transaction() as session:
        servers.delete(session, clock().now(), caller(), servers.find(session, caller(), server_id), request_id())
    return empty()


@compute.get("/servers/<server_id>/ips")
@require("os_compute_api:ips:index")
def list_ips(server_id: str) -> Response:
    return json({"addresses": _ips(server_id)})


@compute.get("/servers/<server_id>/ips/<label>")
@require("os_compute_api:ips:show")
def show_ips(server_id: str, label: str) -> Response:
    addresses = _ips(server_id)
    if label not in addresses:
        raise errors.NotFound(f"Instance is not a member of specified network {label}")
    return json({label: addresses[label]})


def _ips(server_id: str) -> dict[str, list[dict[str, Any]]]:
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
        shown = views.addresses(ports.nics_of(session, [server.id]).get(server.id, ()))
    return {
        label: [{"version": address["version"], "addr": address["addr"]} for address in addresses]
        for label, addresses in shown.items()
    }


@compute.get("/servers/<server_id>/metadata")
@require("os_compute_api:server-metadata:index")
def list_metadata(server_id: str) -> Response:
    with database().reading() as session:
        return json({"metadata": servers.find(session, caller(), server_id).metadata_})


@compute.post("/servers/<server_id>/metadata")
@require("os_compute_api:server-metadata:create")
def add_metadata(server_id: str) -> Response:
    return json({"metadata": _set_metadata(server_id, parse(MetadataBody, json_body()).metadata)})


@compute.put("/servers/<server_id>/metadata")
@require("os_compute_api:server-metadata:update_all")
def replace_metadata(server_id: str) -> Response:
    return json({"metadata": _set_metadata(server_id, parse(MetadataBody, json_body()).metadata, replace=True)})


def _set_metadata(server_id: str, wanted: dict[str, str], *, replace: bool = False) -> dict[str, Any]:
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        servers.check_lock(caller(), server)
        metadata = wanted if replace else {**server.metadata_, **wanted}
        servers.check_metadata(session, caller(), metadata)
        server.metadata_ = metadata
        server.updated_at = clock().now()
    return metadata


@compute.get("/servers/<server_id>/metadata/<key>")
@require("os_compute_api:server-metadata:show")
def show_metadata(server_id: str, key: str) -> Response:
    with database().reading() as session:
        metadata = servers.find(session, caller(), server_id).metadata_
    if key not in metadata:
        raise errors.NotFound("Metadata item was not found")
    return json({"meta": {key: metadata[key]}})


@compute.put("/servers/<server_id>/metadata/<key>")
@require("os_compute_api:server-metadata:update")
def update_metadata(server_id: str, key: str) -> Response:
    meta = parse(MetaBody, json_body()).meta
    if list(meta) != [key]:
        raise errors.BadRequest("Request body and URI mismatch")
    _set_metadata(server_id, meta)
    return json({"meta": meta})


@compute.delete("/servers/<server_id>/metadata/<key>")
@require("os_compute_api:server-metadata:delete")
def delete_metadata(server_id: str, key: str) -> Response:
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        servers.check_lock(caller(), server)
        if key not in server.metadata_:
            raise errors.NotFound("Metadata item was not found")
        server.metadata_ = {name: value for name, value in server.metadata_.items() if name != key}
        server.updated_at = clock().now()
    return empty()
