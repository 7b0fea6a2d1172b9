"""Routes of server groups. 2.13 added the owner, 2.15 soft policies, 2.64 rules."""

from flask import Response, request

from app.core import errors
from app.core.numbers import parse_capped_integer
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database
from app.web.policy import enforce, require
from app.web.responses import empty, json
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import transaction, version
from compute_api.scheduler import server_groups
from compute_api.schemas.server_groups import CreateGroup
from compute_api.views import server_groups as views


@compute.get("/os-server-groups")
@require("os_compute_api:os-server-groups:index")
def list_server_groups() -> Response:
    list_params.check_known("all_projects", "limit", "offset")
    project: str | None = caller().project
    if "all_projects" in request.args and caller().is_admin:
        enforce("os_compute_api:os-server-groups:index:all_projects")
        project = None
    with database().reading() as session:
        found = server_groups.list_groups(
            session, project, limit=_parse_number("limit", 1000), offset=_parse_number("offset", 0)
        )
        members = server_groups.members_by_group(session, [group.id for group in found])
    return json({"server_groups": [views.show(group, members.get(group.id, ()), version()) for group in found]})


def _parse_number(name: str, default: int) -> int:
    text = request.args.get(name, "")
    if text == "":
        return default
    try:
        number = parse_capped_integer(text)
    except ValueError:
        number = -1
    if number < 0:
        raise errors.BadRequest(
            f"Invalid input for query parameters {name}. Value: {text}. '{text}' does not match '^[0-9]*$'"
        )
    return min(number, 1000) if name == "limit" else number


@compute.post("/os-server-groups")
@require("os_compute_api:os-server-groups:create")
def create_server_group() -> Response:
    fields = parse(CreateGroup, json_body(), version()).server_group
    policy, limit = fields.policy_and_limit(version())
    with transaction() as session:
        group = server_groups.create(session, clock().now(), caller(), fields.name, policy, limit)
    return json({"server_group": views.show(group, (), version())})


@compute.get("/os-server-groups/<group_id>")
@require("os_compute_api:os-server-groups:show")
def show_server_group(group_id: str) -> Response:
    with database().reading() as session:
        group = server_groups.find(session, caller(), group_id)
        members = server_groups.members_by_group(session, [group.id])
    return json({"server_group": views.show(group, members.get(group.id, ()), version())})


@compute.delete("/os-server-groups/<group_id>")
@require("os_compute_api:os-server-groups:delete")
def delete_server_group(group_id: str) -> Response:
    with transaction() as session:
        server_groups.delete(session, caller(), group_id)
    return empty()
