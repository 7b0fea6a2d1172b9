"""/v2.0/network-ip-availabilities, and empty lists of agents, availability zones and service providers."""

from collections.abc import Callable

from flask import Blueprint, Response, request

from app.core.errors import BadRequest
from app.web.context import database
from app.web.policy import require
from app.web.responses import json
from network_api.errors import NetworkNotFound
from network_api.resources.availability import Availability, list_availabilities
from network_api.routes.params.list_params import CONTROL_PARAMETERS, select_fields
from network_api.views.availability import availability

blueprint = Blueprint("network_operators", __name__)

FILTERS: dict[str, Callable[[Availability], str]] = {
    "network_id": lambda found: found.network_id,
    "network_name": lambda found: found.network_name,
    "project_id": lambda found: found.project_id,
    "tenant_id": lambda found: found.project_id,
    "ip_version": lambda _found: "6",
}


@blueprint.get("/network-ip-availabilities")
@require("get_network_ip_availability")
def network_ip_availabilities() -> Response:
    filters = {name: values for name, values in request.args.lists() if name not in CONTROL_PARAMETERS}
    unknown = [name for name in filters if name not in FILTERS]
    if unknown:
        raise BadRequest(f"{unknown} is invalid attribute for filtering")
    with database().reading() as session:
        found = list_availabilities(session)
    wanted = [one for one in found if all(FILTERS[name](one) in values for name, values in filters.items())]
    return json({"network_ip_availabilities": select_fields([availability(one) for one in wanted])})


@blueprint.get("/network-ip-availabilities/<network_id>")
@require("get_network_ip_availability")
def network_ip_availability(network_id: str) -> Response:
    with database().reading() as session:
        found = list_availabilities(session, network_id)
    if not found:
        raise NetworkNotFound(network_id)
    return json({"network_ip_availability": select_fields([availability(found[0])])[0]})


@blueprint.get("/agents")
@require("get_agent")
def agents() -> Response:
    """Empty: hosts are listed as hypervisors in the compute API."""
    return json({"agents": []})


@blueprint.get("/availability_zones")
@require("get_availability_zone")
def availability_zones() -> Response:
    """Empty: a network is available on every host."""
    return json({"availability_zones": []})


@blueprint.get("/service-providers")
@require("get_service_provider")
def service_providers() -> Response:
    return json({"service_providers": []})
