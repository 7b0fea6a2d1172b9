"""/v2/images/{id}/tags/{tag}: add and remove tags."""

from flask import Blueprint, Response

from app.core import errors
from app.web.context import clock, database
from app.web.policy import require
from app.web.responses import empty
from image_api.routes.dependencies import find_image
from image_api.schemas.images import MAXIMUM_TAGS

blueprint = Blueprint("image_tags", __name__, url_prefix="/image/v2/images/<image_id>/tags")


@blueprint.put("/<tag>")
@require("modify_image")
def add(image_id: str, tag: str) -> Response:
    if len(tag) > 255:
        raise errors.BadRequest("A tag must have at most 255 characters.")
    with database().transaction() as session:
        image = find_image(session, image_id, "modify_image")
        tags = sorted({*image.tags, tag})
        if len(tags) > MAXIMUM_TAGS:
            raise errors.TooLarge(f"An image can have at most {MAXIMUM_TAGS} tags.")
        if tags != image.tags:
            image.tags, image.updated_at = tags, clock().now()
    return empty()


@blueprint.delete("/<tag>")
@require("modify_image")
def remove(image_id: str, tag: str) -> Response:
    with database().transaction() as session:
        image = find_image(session, image_id, "modify_image")
        if tag not in image.tags:
            raise errors.NotFound(f"Image {image_id} has no tag {tag}.")
        image.tags, image.updated_at = [kept for kept in image.tags if kept != tag], clock().now()
    return empty()
