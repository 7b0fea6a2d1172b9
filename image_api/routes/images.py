"""/v2/images: create, list, show, update, delete."""

from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, g, request

from app.core import errors
from app.web.context import clock, database
from app.web.links import url
from app.web.pagination import page
from app.web.policy import enforce, require
from app.web.responses import empty, json
from image_api import images, queries
from image_api.models import Image
from image_api.routes.dependencies import IMPORT_METHODS, find_image, parse_body, parse_object, policy_target, store
from image_api.schemas.images import parse_new_image, parse_patch
from image_api.states import Visibility
from image_api.views import images as views

blueprint = Blueprint("image_images", __name__, url_prefix="/image/v2/images")

PATCH_TYPES = {
    "application/openstack-images-v2.1-json-patch": False,
    "application/openstack-images-v2.0-json-patch": True,
}
"""Media type → whether it uses the draft 4 syntax of JSON patch."""


@blueprint.post("", strict_slashes=True)
@require("add_image")
def create() -> Response:
    new = parse_new_image(parse_object())
    if new.owner is not None and new.owner != g.caller.project_id and not g.caller.is_admin:
        raise errors.Forbidden(f"You are not permitted to create images owned by '{new.owner}'.")
    _check_visibility(new.visibility, {"project_id": new.owner or g.caller.project_id})
    if new.owner is None:
        g.caller.require_project()
    with database().transaction() as session:
        image = images.create(session, g.caller, new, clock().now())
    headers = {
        "Location": url(f"/image/v2/images/{image.id}"),
        "OpenStack-image-import-methods": ",".join(IMPORT_METHODS),
    }
    return json(views.show(image), 201, headers)


@blueprint.get("", strict_slashes=True)  # 404 for /images/, an image with an empty id
@require("get_images")
def index() -> Response:
    asked = page(request.args, default=25)
    wanted = queries.ImageListQuery(
        filters=_filters(),
        order=_parse_orders(),
        limit=asked.limit,
        marker=asked.marker,
        place=request.args.get(queries.MARKER_POSITION),
        member_status=request.args.get("member_status"),
    )
    with database().reader.connect() as connection:
        found = queries.list_images(connection, g.caller, wanted)
    pairs = [
        (key, value) for key, value in request.args.items(multi=True) if key not in ("marker", queries.MARKER_POSITION)
    ]
    first = "/v2/images" + (f"?{urlencode(pairs)}" if pairs else "")
    more = None
    if found and len(found) == asked.limit:
        last = {"marker": found[-1].id, queries.MARKER_POSITION: queries.format_position(found[-1], wanted)}
        more = f"/v2/images?{urlencode([*pairs, *last.items()])}"
    return json(views.index(found, first, more))


@blueprint.get("/<image_id>")
@require("get_image")
def show(image_id: str) -> Response:
    with database().reader.connect() as connection:
        image = queries.find_row(connection, g.caller, image_id)
    enforce("get_image", policy_target(image))
    return json(views.show(image))


@blueprint.patch("/<image_id>")
@require("modify_image")
def change(image_id: str) -> Response:
    draft4 = PATCH_TYPES.get(request.mimetype)
    if draft4 is None:
        accepted = {"Accept-Patch": ", ".join(PATCH_TYPES)}
        raise errors.UnsupportedMedia(f"Patches must be one of {', '.join(PATCH_TYPES)}.", headers=accepted)
    operations = parse_body()
    with database().transaction() as session:
        image = find_image(session, image_id, "modify_image")
        changes, properties = parse_patch(image, operations, draft4=draft4)
        _check_changes(image, changes)
        for name, value in changes.items():
            setattr(image, name, value)
        if image.properties != properties:
            image.properties = properties
        if session.is_modified(image):
            image.updated_at = clock().now()
    return json(views.show(image))


@blueprint.delete("/<image_id>")
@require("delete_image")
def delete(image_id: str) -> Response:
    with database().transaction() as session:
        images.remove(session, store(), find_image(session, image_id, "delete_image"), clock().now())
    return empty()


def _check_changes(image: Image, changes: dict[str, Any]) -> None:
    if "owner" in changes and changes["owner"] != image.owner and not g.caller.is_admin:
        raise errors.Forbidden("You are not permitted to modify 'owner' on this image.")
    if "visibility" in changes and changes["visibility"] != image.visibility:
        _check_visibility(changes["visibility"], policy_target(image))


def _check_visibility(visibility: str, subject: dict[str, Any]) -> None:
    if visibility == Visibility.PUBLIC:
        enforce("publicize_image", subject)
    elif visibility == Visibility.COMMUNITY:
        enforce("communitize_image", subject)


def _filters() -> dict[str, list[str]]:
    return {name: values for name, values in request.args.lists() if name not in queries.NOT_FILTERS}


def _parse_orders() -> list[queries.Order]:
    """Parse `sort=name:asc,created_at`, or repeated `sort_key` and `sort_dir`. Raises BadRequest for both together."""
    keys, directions = request.args.getlist("sort_key"), request.args.getlist("sort_dir")
    if sort := request.args.get("sort"):
        if keys or directions:
            raise errors.BadRequest("Old and new sorting syntax cannot be combined.")
        pairs = [item.strip().partition(":") for item in sort.split(",")]
        return [_parse_order(key.strip(), direction.strip() or "desc") for key, _, direction in pairs]
    if not keys:
        return [_parse_order("created_at", directions[0] if directions else "desc")]
    if len(directions) > 1 and len(directions) != len(keys):
        raise errors.BadRequest("Number of sort dirs does not match the number of sort keys.")
    directions = directions * len(keys) if len(directions) == 1 else directions or ["desc"] * len(keys)
    return [_parse_order(key, direction) for key, direction in zip(keys, directions, strict=True)]


def _parse_order(key: str, direction: str) -> queries.Order:
    if key not in queries.SORT_KEYS:
        raise errors.BadRequest(f"Invalid sort key: {key}. It must be one of {', '.join(queries.SORT_KEYS)}.")
    if direction not in ("asc", "desc"):
        raise errors.BadRequest(f"Invalid sort direction: {direction}. It must be asc or desc.")
    return queries.Order(key, direction == "desc")
