"""Routes of servers: create, list, show, update, delete, metadata and addresses."""

from http import HTTPStatus
from typing import Any

import orjson
from flask import Response

from app.core import errors
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database
from app.web.links import base_url, url
from app.web.microversion import v
from app.web.pagination import query_after
from app.web.policy import enforce, require
from app.web.responses import empty, json, raw_json
from compute_api.hosts import hosts
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import entries, request_id, transaction, version
from compute_api.schemas.servers import CreateServer, MetaBody, MetadataBody, UpdateServer
from compute_api.servers import attributes, creation, queries, servers
from compute_api.servers.queries import ServerFilter
from compute_api.views import servers as views
from compute_api.views.entries import Variant
from network_api.resources import ports

NETWORKS_REQUIRED = v("2.37")


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
        created = creation.create(session, clock().now(), caller(), new, request_id())
        shown = views.created(created)
    if body.server.return_reservation_id:
        return json({"reservation_id": created.reservation_id}, HTTPStatus.ACCEPTED)
    location = {"Location": url(f"/compute/v2.1/servers/{created.servers[0].id}")}
    return json(shown, HTTPStatus.ACCEPTED, location)


@compute.get("/servers")
@require("os_compute_api:servers:index")
def list_servers() -> Response:
    filters = list_params.server_filter("index")
    found = queries.list_names(database(), filters)
    base = base_url()
    shown = [orjson.dumps(views.brief(server_id, name, base)) for server_id, name in found]
    return _page("/servers", shown, found[-1][0] if found else "", filters)


@compute.get("/servers/detail")
@require("os_compute_api:servers:detail")
def list_servers_detail() -> Response:
    filters = list_params.server_filter("detail")
    found = queries.list_keys(database(), filters)
    shown = entries().get(database(), caller(), _variant(single=False), found)
    return _page("/servers/detail", shown, found[-1][1] if found else "", filters)


def _page(path: str, shown: list[bytes], marker: str, filters: ServerFilter) -> Response:
    body = b'{"servers":[' + b",".join(shown) + b"]"
    if shown and len(shown) == filters.limit:
        link = {"rel": "next", "href": url(f"/compute/v2.1{path}?{query_after(marker)}")}
        body += b',"servers_links":' + orjson.dumps([link])
    return raw_json(body + b"}")


def _variant(*, single: bool) -> Variant:
    """Return everything besides the servers that responses to this request depend on."""
    admin = caller().is_admin
    states: tuple[tuple[str, str], ...] = ()
    if admin and version() >= views.HOST_STATUS_SINCE:
        with database().reading() as session:
            states = hosts.states(session, clock().now())
    return Variant(version(), admin, base_url(), single, states)


@compute.get("/servers/<server_id>")
@require("os_compute_api:servers:show")
def show_server(server_id: str) -> Response:
    found = queries.find_key(database(), caller(), server_id)
    shown = entries().get(database(), caller(), _variant(single=True), [found])
    if not shown:
        raise errors.NotFound(f"Instance {server_id} could not be found.")
    return raw_json(b'{"server":' + shown[0] + b"}")


@compute.put("/servers/<server_id>")
@require("os_compute_api:servers:update")
def update_server(server_id: str) -> Response:
    fields = parse(UpdateServer, json_body(), version()).server
    changes = {name: getattr(fields, name) for name in fields.model_fields_set}
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        attributes.update(session, clock().now(), server, changes)
        nics = ports.list_nics(session, [server.id]).get(server.id, ())
        return json({"server": views.updated(server, nics, version(), caller())})


@compute.delete("/servers/<server_id>")
@require("os_compute_api:servers:delete")
def delete_server(server_id: str) -> Response:
    with transaction() as session:
        servers.delete(session, clock().now(), caller(), servers.find(session, caller(), server_id), request_id())
    return empty()


@compute.get("/servers/<server_id>/ips")
@require("os_compute_api:ips:index")
def list_ips(server_id: str) -> Response:
    return json({"addresses": _read_addresses(server_id)})


@compute.get("/servers/<server_id>/ips/<label>")
@require("os_compute_api:ips:show")
def show_ips(server_id: str, label: str) -> Response:
    addresses = _read_addresses(server_id)
    if label not in addresses:
        raise errors.NotFound(f"Instance is not a member of specified network {label}")
    return json({label: addresses[label]})


def _read_addresses(server_id: str) -> dict[str, list[dict[str, Any]]]:
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
        shown = views.addresses(ports.list_nics(session, [server.id]).get(server.id, ()))
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
    return json({"metadata": _update_metadata(server_id, parse(MetadataBody, json_body()).metadata)})


@compute.put("/servers/<server_id>/metadata")
@require("os_compute_api:server-metadata:update_all")
def replace_metadata(server_id: str) -> Response:
    return json({"metadata": _update_metadata(server_id, parse(MetadataBody, json_body()).metadata, replace=True)})


def _update_metadata(server_id: str, items: dict[str, str], *, replace: bool = False) -> dict[str, str]:
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        return attributes.update_metadata(session, clock().now(), caller(), server, items, replace=replace)


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
    _update_metadata(server_id, meta)
    return json({"meta": meta})


@compute.delete("/servers/<server_id>/metadata/<key>")
@require("os_compute_api:server-metadata:delete")
def delete_metadata(server_id: str, key: str) -> Response:
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        attributes.delete_metadata_item(clock().now(), caller(), server, key)
    return empty()
