"""Routes of os-server-password: the encrypted password that the guest posted to the metadata service."""

from flask import Response

from app.web.context import caller, database
from app.web.policy import require
from app.web.responses import empty, json
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import host_client
from compute_api.servers import servers


@compute.get("/servers/<server_id>/os-server-password")
@require("os_compute_api:os-server-password:show")
def show_server_password(server_id: str) -> Response:
    """Return the password: empty until the guest has posted one, and for a server without a host."""
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
    return json({"password": host_client()(server.host, "password", server.id) if server.host else ""})


@compute.delete("/servers/<server_id>/os-server-password")
@require("os_compute_api:os-server-password:clear")
def clear_server_password(server_id: str) -> Response:
    """Delete the stored password, so that the guest may post another. The guest's own password does not change."""
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
    if server.host:
        host_client()(server.host, "forget_password", server.id)
    return empty()
