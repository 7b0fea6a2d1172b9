"""Routes of server groups; what they look like changed with 2.13 (owner), 2.15 (soft policies) and 2.64 (rules)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from flask import Response, request
from pydantic import Field

from app.core import errors
from app.core.numbers import parse_capped_integer
from app.web.bodies import Body, json_body, parse, since, until
from app.web.context import caller, clock, database
from app.web.microversion import v
from app.web.policy import enforce, require
from app.web.responses import empty, json
from compute_api.models import ServerGroup
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import transaction, version
from compute_api.scheduler import server_groups
from compute_api.schemas.fields import Integer, Name

OWNER_SINCE, SOFT_SINCE, RULES_SINCE = v("2.13"), v("2.15"), v("2.64")
Policy = Literal["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"]


class Rules(Body):
    """How strict the policy is."""

    max_server_per_host: Annotated[Integer, Field(ge=1)] | None = None


class GroupFields(Body):
    """The group of POST /os-server-groups."""

    name: Name
    policies: Annotated[list[Policy] | None, Field(min_length=1, max_length=1), until("2.63")] = None
    policy: Annotated[Policy | None, since("2.64")] = None
    rules: Annotated[Rules | None, since("2.64")] = None


class CreateGroup(Body):
    """POST /os-server-groups."""

    server_group: GroupFields


@compute.get("/os-server-groups")
@require("os_compute_api:os-server-groups:index")
def list_server_groups() -> Response:
    list_params.check_known("all_projects", "limit", "offset")
    project: str | None = caller().project
    if "all_projects" in request.args and caller().is_admin:
        enforce("os_compute_api:os-server-groups:index:all_projects")
        project = None
    with database().reading() as session:
        found = server_groups.list_groups(session, project, limit=_number("limit", 1000), offset=_number("offset", 0))
        members = server_groups.members_by_group(session, [group.id for group in found])
    return json({"server_groups": [_shown(group, members.get(group.id, ())) for group in found]})


def _number(name: str, default: int) -> int:
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
    asked = parse(CreateGroup, json_body(), version()).server_group
    policy = asked.policies[0] if asked.policies else asked.policy
    if policy is None:
        missing = "policy" if version() >= RULES_SINCE else "policies"
        raise errors.BadRequest(f"Invalid input for field/attribute server_group. '{missing}' is a required property")
    if policy.startswith("soft-") and version() < SOFT_SINCE:
        raise errors.BadRequest(
            f"Invalid input for field/attribute policies. Value: {policy}. '{policy}' is not one of "
            "['anti-affinity', 'affinity']"
        )
    most = asked.rules.max_server_per_host if asked.rules else None
    if most is not None and policy != "anti-affinity":
        raise errors.BadRequest("Only anti-affinity policy supports rules.")
    with transaction() as session:
        made = server_groups.create(session, clock().now(), caller(), asked.name, policy, most)
    return json({"server_group": _shown(made, ())})


@compute.get("/os-server-groups/<group_id>")
@require("os_compute_api:os-server-groups:show")
def show_server_group(group_id: str) -> Response:
    with database().reading() as session:
        group = server_groups.find(session, caller(), group_id)
        members = server_groups.members_by_group(session, [group.id])
    return json({"server_group": _shown(group, members.get(group.id, ()))})


@compute.delete("/os-server-groups/<group_id>")
@require("os_compute_api:os-server-groups:delete")
def delete_server_group(group_id: str) -> Response:
    with transaction() as session:
        session.delete(server_groups.find(session, caller(), group_id))
    return empty()


def _shown(group: ServerGroup, members: Sequence[str]) -> dict[str, Any]:
    body: dict[str, Any] = {"id": group.id, "name": group.name, "members": list(members)}
    if version() >= RULES_SINCE:
        body["policy"] = group.policy
        body["rules"] = {"max_server_per_host": group.max_server_per_host} if group.max_server_per_host else {}
    else:
        body["policies"] = [group.policy]
        body["metadata"] = {}
    if version() >= OWNER_SINCE:
        body |= {"project_id": group.project_id, "user_id": group.user_id}
    return body
