"""/v2.0/networks."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import Blueprint, Response

from app.core.errors import BadRequest
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database
from app.web.policy import enforce, is_allowed, require
from app.web.responses import empty, json
from network_api.listings.networks import NETWORKS
from network_api.resources import networks, ports
from network_api.routes.params.bulk import create_response
from network_api.routes.params.list_params import View, list_response, show_response
from network_api.routes.params.owners import enforce_on, owner_of_new_resource
from network_api.routes.params.revisions import check_revision
from network_api.routes.port_change_hook import notify_port_change
from network_api.schemas.fields import ONE_SEGMENT
from network_api.schemas.networks import ChangeNetwork, CreateNetwork, CreateNetworks, NetworkFields, NewNetworkFields
from network_api.views import networks as views

blueprint = Blueprint("network_networks", __name__)


def view() -> View:
    """Return the view of a network for this caller; provider attributes are for operators."""
    return partial(views.network, provider=is_allowed("get_network:provider:segmentation_id"))


@blueprint.get("/networks")
@require("get_network")
def index() -> Response:
    return list_response(NETWORKS, "networks", view())


@blueprint.get("/networks/<network_id>")
@require("get_network")
def show(network_id: str) -> Response:
    return show_response(NETWORKS, "network", network_id, view())


@blueprint.post("/networks")
@require("create_network")
def create() -> Response:
    return create_response("network", CreateNetwork, CreateNetworks, _create)


def _create(wanted: list[NewNetworkFields]) -> list[Mapping[str, Any]]:
    now = clock().now()
    with database().transaction() as session:
        made = []
        for new in wanted:
            if new.shared:
                enforce("create_network:shared")
            _refuse_segment(new, "create_network")
            network = networks.create(
                session,
                now,
                project_id=owner_of_new_resource(new.owner),
                name=new.name,
                description=new.description,
                admin_state_up=new.admin_state_up,
                shared=new.shared,
                isolated=new.isolated,
                tags=new.tags,
            )
            made.append(NETWORKS.row(session, caller(), network.id))
    return [view()(row) for row in made]


@blueprint.put("/networks/<network_id>")
@require("update_network")
def change(network_id: str) -> Response:
    body = parse(ChangeNetwork, json_body()).network
    changes = body.changes("name", "description", "admin_state_up", "shared", "isolated")
    with database().transaction() as session:
        network = networks.find(session, caller(), network_id, lock=True)
        enforce_on("update_network", network.project_id)
        _refuse_segment(body, "update_network")
        check_revision(network)
        if "shared" in changes and changes["shared"] != network.shared:
            enforce_on("update_network:shared", network.project_id)
        isolation_changes = changes.get("isolated", network.isolated) != network.isolated
        networks.change(session, clock().now(), network, changes)
        if isolation_changes:
            notify_port_change(session, ports.list_servers(session, network_id=network.id))
        row = NETWORKS.row(session, caller(), network_id)
    return json({"network": view()(row)})


@blueprint.delete("/networks/<network_id>")
@require("delete_network")
def delete(network_id: str) -> Response:
    with database().transaction() as session:
        network = networks.find(session, caller(), network_id, lock=True)
        enforce_on("delete_network", network.project_id)
        check_revision(network)
        networks.delete(session, network)
    return empty()


def _refuse_segment(body: NetworkFields, action: str) -> None:
    """Raise Forbidden, or BadRequest for an operator, when the body has provider attributes."""
    for name in body.provider_attributes():
        enforce(f"{action}:{name}")
        raise BadRequest(f"Invalid input for field/attribute {name}. {ONE_SEGMENT}")
