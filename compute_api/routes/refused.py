"""What Nova can do to a server and this cloud does not: refused in words, with Nova's status where it has one."""

from typing import Any

from flask import Response

from app import errors
from app.web.bodies import parse
from app.web.context import caller, database
from compute_api import servers
from compute_api.models import Server
from compute_api.schemas.server_actions import SecurityGroup


def add_security_group(server_id: str, body: Any) -> Response:
    """There is one group, and every server is in it."""
    name = parse(SecurityGroup, body).name
    server = _found(server_id)
    if name != "default":
        raise errors.NotFound(f"Security group {name} not found for project {server.project_id}.")
    raise errors.BadRequest(f"Security group {name} is already associated with the instance {server.id}")


def remove_security_group(server_id: str, body: Any) -> Response:
    """And no server leaves it."""
    name = parse(SecurityGroup, body).name
    server = _found(server_id)
    if name != "default":
        raise errors.NotFound(f"Security group {name} not found for project {server.project_id}.")
    raise errors.BadRequest("There are no security groups in this cloud: default filters nothing and stays.")


def _found(server_id: str) -> Server:
    with database().reading() as session:
        return servers.find(session, caller(), server_id)
