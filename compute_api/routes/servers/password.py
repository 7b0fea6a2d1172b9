"""/servers/{id}/os-server-password: what the guest has posted to the metadata service, for whom it encrypted it."""

from flask import Response

from app.web.context import caller, database
from app.web.policy import require
from app.web.responses import empty, json
from compute_api.models import Server
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import ask
from compute_api.servers import servers


@compute.get("/servers/<server_id>/os-server-password")
@require("os_compute_api:os-server-password:show")
def show_server_password(server_id: str) -> Response:
    """Empty until the guest has posted one, and for a server that no host has."""
    server = _find(server_id)
    return json({"password": ask()(server.host, "password", server.id) if server.host else ""})


@compute.delete("/servers/<server_id>/os-server-password")
@require("os_compute_api:os-server-password:clear")
def clear_server_password(server_id: str) -> Response:
    """The cloud forgets it, and the guest may post another one; what it lets in by is not changed."""
    server = _find(server_id)
    if server.host:
        ask()(server.host, "forget_password", server.id)
    return empty()


def _find(server_id: str) -> Server:
    with database().reading() as session:
        return servers.find(session, caller(), server_id)
