"""/v2.0/ports."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import Blueprint, Response
from sqlalchemy.orm import Session

from app.core.errors import BadRequest
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database
from app.web.policy import enforce, is_allowed, require
from app.web.responses import empty, json
from network_api.errors import PortBound, SubnetNotFound
from network_api.listings.ports import PORTS
from network_api.models import Network, Port
from network_api.resources import networks, ports
from network_api.routes.params.bulk import create_response
from network_api.routes.params.list_params import View, list_response, show_response
from network_api.routes.params.owners import enforce_on, owner_of_new_resource
from network_api.routes.params.revisions import check_revision
from network_api.routes.port_change_hook import notify_port_change
from network_api.schemas.ports import ChangePort, CreatePort, CreatePorts, NewPortFields, PortFields
from network_api.views import ports as views

PLAIN_FIELDS = {"name", "description", "device_owner", "admin_state_up", "ipv4_address", "tags"}
"""Fields of a body that a new port takes unchanged."""

blueprint = Blueprint("network_ports", __name__)


def view() -> View:
    """Return the view of a port for this caller; binding attributes are for operators."""
    return partial(views.port, binding=is_allowed("get_port:binding:host_id"))


@blueprint.get("/ports")
@require("get_port")
def index() -> Response:
    return list_response(PORTS, "ports", view())


@blueprint.get("/ports/<port_id>")
@require("get_port")
def show(port_id: str) -> Response:
    return show_response(PORTS, "port", port_id, view())


@blueprint.post("/ports")
@require("create_port")
def create() -> Response:
    return create_response("port", CreatePort, CreatePorts, _create)


def _create(wanted: list[NewPortFields]) -> list[Mapping[str, Any]]:
    now = clock().now()
    with database().transaction() as session:
        made = [_create_one(session, now, new).id for new in wanted]
        session.flush()
        rows = [PORTS.row(session, caller(), port_id) for port_id in made]
    return [view()(row) for row in rows]


def _create_one(session: Session, now: Any, new: NewPortFields) -> Port:
    network = networks.find(session, caller(), new.network_id)
    address = _wanted_address(network, new, "create_port")
    if new.mac_address:
        enforce_on("create_port:mac_address", network.project_id)
    if new.pairs:
        enforce_on("create_port:allowed_address_pairs", network.project_id)
    if new.ipv4_address:
        enforce("create_port:ipv4_address")
    if new.host_id:
        enforce("create_port:binding:host_id")
    return ports.create(
        session,
        now,
        ports.NewPort(
            project_id=owner_of_new_resource(new.owner),
            network=network,
            host=new.host_id or None,
            mac=new.mac_address,
            address=address,
            addressed=new.fixed_ips != [],
            pairs=new.pairs,
            **new.model_dump(include=PLAIN_FIELDS),
        ),
    )


@blueprint.put("/ports/<port_id>")
@require("update_port")
def change(port_id: str) -> Response:
    body = parse(ChangePort, json_body()).port
    changes = body.changes("name", "description", "admin_state_up", "mac_address", "device_owner")
    with database().transaction() as session:
        port = ports.find(session, caller(), port_id, lock=True)
        enforce_on("update_port", port.project_id)
        check_revision(port)
        if port.device_id and changes.get("device_owner", port.device_owner) != port.device_owner:
            raise BadRequest("device_owner of a port that is bound to a server cannot be changed.")
        network = networks.get_network_of_port(session, port)
        if body.mac_address and body.mac_address != port.mac_address:
            enforce_on("update_port:mac_address", network.project_id)
        if body.fixed_ips is not None:
            changes["ip_address"] = None if body.fixed_ips == [] else _changed_address(network, port, body)
        if "allowed_address_pairs" in body.model_fields_set:
            enforce_on("update_port:allowed_address_pairs", network.project_id)
            changes["pairs"] = body.pairs
        if "ipv4_address" in body.model_fields_set:
            enforce("update_port:ipv4_address")
            changes["ipv4_address"] = body.ipv4_address
        if "host_id" in body.model_fields_set and (body.host_id or None) != port.binding_host:
            enforce("update_port:binding:host_id")
            if port.device_id:
                raise PortBound(port.id, port.device_id)
            changes["binding_host"] = body.host_id or None
        ports.change(session, clock().now(), port, network, changes)
        if changes.keys() & {"pairs", "ipv4_address"}:
            notify_port_change(session, [port.device_id] if port.device_id else [])
        row = PORTS.row(session, caller(), port_id)
    return json({"port": view()(row)})


@blueprint.delete("/ports/<port_id>")
@require("delete_port")
def delete(port_id: str) -> Response:
    with database().transaction() as session:
        port = ports.find(session, caller(), port_id, lock=True)
        enforce_on("delete_port", port.project_id)
        check_revision(port)
        ports.remove(session, port)
    return empty()


def _changed_address(network: Network, port: Port, body: PortFields) -> str:
    """Return the requested address; "" derives it from the MAC. The current address needs no permission."""
    if body.fixed_ips and str(body.fixed_ips[0].ip_address) == port.ip_address:
        return port.ip_address or ""
    return _wanted_address(network, body, "update_port") or ""


def _wanted_address(network: Network, body: PortFields, action: str) -> str | None:
    """Return the address in `fixed_ips`, if any. Raises SubnetNotFound for a subnet of another network."""
    if not body.fixed_ips:
        return None
    fixed_ip = body.fixed_ips[0]
    if fixed_ip.subnet_id and (network.subnet is None or network.subnet.id != fixed_ip.subnet_id):
        raise SubnetNotFound(fixed_ip.subnet_id)
    if fixed_ip.ip_address is None:
        return None
    enforce_on(f"{action}:fixed_ips:ip_address", network.project_id)
    return str(fixed_ip.ip_address)
