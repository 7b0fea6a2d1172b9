"""Server actions that this cloud does not support: rejected with Nova's status and message where Nova has them."""

from typing import Any

from flask import Response

from app.core import errors
from app.web.bodies import parse
from app.web.context import caller, database
from app.web.microversion import v
from compute_api.routes.base.context import check_available
from compute_api.schemas.server_actions import FloatingIp, SecurityGroup
from compute_api.servers import servers

LAST_ADDRESS_ACTION = v("2.43")


def add_security_group(server_id: str, body: Any) -> Response:
    """Raise BadRequest: every server is in the only group, default."""
    name = parse(SecurityGroup, body).name
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
    if name != "default":
        raise errors.NotFound(f"Security group {name} not found for project {server.project_id}.")
    raise errors.BadRequest(f"Security group {name} is already associated with the instance {server.id}")


def remove_security_group(server_id: str, body: Any) -> Response:
    """Raise BadRequest: servers cannot leave the group default."""
    name = parse(SecurityGroup, body).name
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
    if name != "default":
        raise errors.NotFound(f"Security group {name} not found for project {server.project_id}.")
    raise errors.BadRequest("This cloud has no security groups: default has no rules and cannot be removed.")


def add_floating_ip(server_id: str, body: Any) -> Response:
    """Raise Nova's error for a server without an IPv4 address; NotFound after 2.43."""
    address = _floating_address(body)
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
    raise errors.BadRequest(
        f"Unable to associate floating IP {address} to any fixed IPs for instance {server.id}. Instance has no fixed "
        "IPv4 addresses to associate."
    )


def remove_floating_ip(server_id: str, body: Any) -> Response:
    """Raise NotFound: there are no floating IPs."""
    _floating_address(body)
    with database().reading() as session:
        servers.find(session, caller(), server_id)
    raise errors.NotFound("floating IP not found")


def reset_network(server_id: str, body: Any) -> Response:  # noqa: ARG001
    """Raise Gone, as Nova does."""
    raise errors.Gone("This resource is no longer available. No forwarding address is given.")


def _floating_address(body: Any) -> str:
    check_available(until=LAST_ADDRESS_ACTION)
    return parse(FloatingIp, body).address
