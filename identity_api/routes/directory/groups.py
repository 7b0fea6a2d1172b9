"""Routes of groups and their members."""

from http import HTTPStatus

from flask import Blueprint, Response, request

from app.core import errors
from app.web.context import clock, database
from app.web.responses import empty, json
from identity_api.directory import groups
from identity_api.routes.base import targets
from identity_api.routes.base.bodies import parse_member
from identity_api.routes.base.policy import guard
from identity_api.schemas.users import GroupChange, NewGroup
from identity_api.views import users as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_groups", __name__)


@blueprint.get("/groups")
@guard("identity:list_groups", targets.requested_domain)
def list_all() -> Response:
    with database().reading() as session:
        page = groups.list_groups(session, targets.list_arguments())
        return json(collection("groups", [views.group(group) for group in page.rows], page.next_marker))


@blueprint.post("/groups")
@guard("identity:create_group", targets.new_group)
def create() -> Response:
    body = parse_member(NewGroup, "group")
    with database().transaction() as session:
        group = groups.create(
            session,
            clock().now(),
            name=body.name,
            domain_id=body.domain_id or targets.new_domain_id("group"),
            description=body.description or "",
            extra=body.extra(),
        )
    return json({"group": views.group(group)}, HTTPStatus.CREATED)


@blueprint.get("/groups/<group_id>")
@guard("identity:get_group", targets.group)
def show(group_id: str) -> Response:
    with database().reading() as session:
        return json({"group": views.group(groups.find(session, group_id))})


@blueprint.patch("/groups/<group_id>")
@guard("identity:update_group", targets.group)
def update(group_id: str) -> Response:
    body = parse_member(GroupChange, "group")
    with database().transaction() as session:
        group = groups.find(session, group_id)
        if "domain_id" in body.model_fields_set and body.domain_id != group.domain_id:
            raise errors.BadRequest("Cannot change group's domain_id.")
        changes = body.provided("name", "description")
        if "description" in changes:
            changes["description"] = changes["description"] or ""
        groups.change(session, group, changes, body.extra())
    return json({"group": views.group(group)})


@blueprint.delete("/groups/<group_id>")
@guard("identity:delete_group", targets.group)
def delete(group_id: str) -> Response:
    with database().transaction() as session:
        groups.remove(session, groups.find(session, group_id))
    return empty()


@blueprint.get("/groups/<group_id>/users")
@guard("identity:list_users_in_group", targets.group)
def members(group_id: str) -> Response:
    with database().reading() as session:
        page = groups.list_members(session, group_id, request.args)
        return json(collection("users", [views.user(user) for user in page.rows], page.next_marker))


@blueprint.put("/groups/<group_id>/users/<user_id>")
@guard("identity:add_user_to_group", targets.membership)
def add_member(group_id: str, user_id: str) -> Response:
    with database().transaction() as session:
        groups.add_member(session, group_id, user_id)
    return empty()


@blueprint.get("/groups/<group_id>/users/<user_id>")
@guard("identity:check_user_in_group", targets.membership)
def check_member(group_id: str, user_id: str) -> Response:
    with database().reading() as session:
        groups.check_member(session, group_id, user_id)
    return empty()


@blueprint.delete("/groups/<group_id>/users/<user_id>")
@guard("identity:remove_user_from_group", targets.membership)
def remove_member(group_id: str, user_id: str) -> Response:
    with database().transaction() as session:
        groups.remove_member(session, group_id, user_id)
    return empty()
