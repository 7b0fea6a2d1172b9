"""What operators' tools read: agents, availability zones and service providers. There are none of them."""

from flask import Blueprint, Response

from app.web.policy import require
from app.web.responses import json

blueprint = Blueprint("network_operators", __name__)


@blueprint.get("/agents")
@require("get_agent")
def agents() -> Response:
    """Empty: hosts are compute's hypervisors here."""
    return json({"agents": []})


@blueprint.get("/availability_zones")
@require("get_availability_zone")
def availability_zones() -> Response:
    """Empty: a network is on every host that needs it."""
    return json({"availability_zones": []})


@blueprint.get("/service-providers")
@require("get_service_provider")
def service_providers() -> Response:
    return json({"service_providers": []})
