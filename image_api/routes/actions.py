"""/v2/images/{id}/actions: deactivate and reactivate images."""

from flask import Blueprint, Response

from app.web.context import clock, database
from app.web.policy import require
from app.web.responses import empty
from image_api import images
from image_api.routes.dependencies import find_image

blueprint = Blueprint("image_actions", __name__, url_prefix="/image/v2/images/<image_id>/actions")


@blueprint.post("/deactivate")
@require("deactivate")
def deactivate(image_id: str) -> Response:
    with database().transaction() as session:
        image = find_image(session, image_id, "deactivate")
        images.set_activation(session, image, active=False, now=clock().now())
    return empty()


@blueprint.post("/reactivate")
@require("reactivate")
def reactivate(image_id: str) -> Response:
    with database().transaction() as session:
        image = find_image(session, image_id, "reactivate")
        images.set_activation(session, image, active=True, now=clock().now())
    return empty()
