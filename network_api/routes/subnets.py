"""/v2.0/subnets."""

from flask import Blueprint, Response

from app.web.policy import require
from network_api.routes.asked import listed, shown
from network_api.subnets import SUBNETS
from network_api.views import subnets as views

blueprint = Blueprint("network_subnets", __name__)


@blueprint.get("/subnets")
@require("get_subnet")
def index() -> Response:
    return listed(SUBNETS, "subnets", views.subnet)


@blueprint.get("/subnets/<subnet_id>")
@require("get_subnet")
def show(subnet_id: str) -> Response:
    return shown(SUBNETS, "subnet", subnet_id, views.subnet)
