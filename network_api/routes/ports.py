"""/v2.0/ports."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Row

from app.web.policy import allowed, require
from network_api.port_listing import PORTS
from network_api.routes.asked import Document, listed, shown
from network_api.views import ports as views

blueprint = Blueprint("network_ports", __name__)


def view() -> Callable[[Row[Any]], Document]:
    """How this caller may see ports."""
    return partial(views.port, binding=allowed("get_port:binding:host_id"))


@blueprint.get("/ports")
@require("get_port")
def index() -> Response:
    return listed(PORTS, "ports", view())


@blueprint.get("/ports/<port_id>")
@require("get_port")
def show(port_id: str) -> Response:
    return shown(PORTS, "port", port_id, view())
