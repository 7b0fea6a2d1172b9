"""/v2.0/networks."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Row

from app.web.policy import allowed, require
from network_api.networks import NETWORKS
from network_api.routes.asked import Document, listed, shown
from network_api.views import networks as views

blueprint = Blueprint("network_networks", __name__)


def view() -> Callable[[Row[Any]], Document]:
    """How this caller may see networks."""
    return partial(views.network, provider=allowed("get_network:provider:segmentation_id"))


@blueprint.get("/networks")
@require("get_network")
def index() -> Response:
    return listed(NETWORKS, "networks", view())


@blueprint.get("/networks/<network_id>")
@require("get_network")
def show(network_id: str) -> Response:
    return shown(NETWORKS, "network", network_id, view())
