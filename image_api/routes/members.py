"""/v2/images/{id}/members: add, list, show, accept or reject, remove."""

from flask import Blueprint, Response, g

from app.core import errors
from app.web.context import clock, database
from app.web.policy import is_allowed, require
from app.web.responses import empty, json
from image_api import images, members
from image_api.routes.dependencies import find_image, parse_object, policy_target
from image_api.states import MemberStatus
from image_api.views import images as views

blueprint = Blueprint("image_members", __name__, url_prefix="/image/v2/images/<image_id>/members")


@blueprint.post("")
@require("add_member")
def add(image_id: str) -> Response:
    project_id = parse_object().get("member")
    if not isinstance(project_id, str):
        raise errors.BadRequest("Member not specified")
    with database().transaction() as session:
        image = find_image(session, image_id, "add_member")
        row = members.add(session, image, project_id, clock().now())
    return json(views.member(row))


@blueprint.get("")
@require("get_members")
def index(image_id: str) -> Response:
    with database().reading() as session:
        rows = members.list_members(session, g.caller, images.find_visible(session, g.caller, image_id))
    return json(views.members(rows))


@blueprint.get("/<project_id>")
@require("get_member")
def show(image_id: str, project_id: str) -> Response:
    with database().reading() as session:
        row = members.find(session, g.caller, images.find_visible(session, g.caller, image_id), project_id)
    return json(views.member(row))


@blueprint.put("/<project_id>")
@require("get_member")
def answer(image_id: str, project_id: str) -> Response:
    """Set the member status; only the member itself may, not the owner."""
    status = parse_object().get("status")
    if status not in list(MemberStatus):
        raise errors.BadRequest(f"Status must be one of {', '.join(MemberStatus)}, not {status!r}.")
    with database().transaction() as session:
        image = images.find_visible(session, g.caller, image_id)
        members.check_shared(image)
        row = members.find(session, g.caller, image, project_id)
        if not is_allowed("modify_member", {**policy_target(image), "member_id": row.member}):
            raise errors.Forbidden(f"Not allowed to update members for image {image_id}.")
        row.status, row.updated_at = status, clock().now()
    return json(views.member(row))


@blueprint.delete("/<project_id>")
@require("delete_member")
def remove(image_id: str, project_id: str) -> Response:
    with database().transaction() as session:
        image = find_image(session, image_id, "delete_member")
        members.check_shared(image)
        session.delete(members.find(session, g.caller, image, project_id))
    return empty()
