"""/v2/images/{id}/import and /v2/tasks: imports of staged data and web downloads, and their status."""

from typing import Any

from flask import Blueprint, Response, g

from app.core import errors
from app.db.database import after_commit
from app.web.context import clock, database
from app.web.policy import require
from app.web.responses import empty, json
from image_api import images
from image_api.imports import imports
from image_api.models import ImageTask
from image_api.routes.dependencies import IMPORT_METHODS, find_image, parse_object, upload_limits, worker
from image_api.views import tasks as views

blueprint = Blueprint("image_imports", __name__, url_prefix="/image/v2")


@blueprint.post("/images/<image_id>/import")
@require("modify_image")
def begin(image_id: str) -> Response:
    method, uri = _method(parse_object())
    with database().transaction() as session:
        image = find_image(session, image_id, "modify_image")
        if method == "web-download" and upload_limits(images.used_bytes(session, image.owner)).object_bytes <= 0:
            raise errors.QuotaExceeded("Request exceeds image size quota: the project's images use all of it.")
        imports.create_task(session, g.caller, image, method, uri, g.request_id, clock().now())
        after_commit(session, worker().nudge)
    return empty(202)


@blueprint.get("/images/<image_id>/tasks")
@require("get_image")
def of_image(image_id: str) -> Response:
    with database().reading() as session:
        images.find_visible(session, g.caller, image_id)
        found = imports.list_image_tasks(session, image_id)
    return json({"tasks": [views.show(task) for task in found]})


@blueprint.get("/tasks")
@require("get_tasks")
def index() -> Response:
    with database().reading() as session:
        found = imports.list_visible(session, g.caller)
    return json(views.index(found))


@blueprint.get("/tasks/<task_id>")
@require("get_task")
def show(task_id: str) -> Response:
    with database().reading() as session:
        task = session.get(ImageTask, task_id)
    if task is None or not (g.caller.is_admin or task.owner == g.caller.project):
        raise errors.NotFound(f"No task found with ID {task_id}")
    return json(views.show(task))


@blueprint.post("/tasks")
@require("get_tasks")
def create() -> Response:
    raise errors.NotFound("Tasks cannot be created directly; import an image instead.")


def _method(body: dict[str, Any]) -> tuple[str, str | None]:
    method = body.get("method")
    name = method.get("name") if isinstance(method, dict) else None
    if not isinstance(method, dict) or name is None:
        raise errors.BadRequest("Import request requires a 'method' field with a 'name'.")
    if name not in IMPORT_METHODS:
        raise errors.BadRequest(f"Unknown import method name '{name}'.")
    if body.get("stores"):
        raise errors.BadRequest("Multi backend is not supported at this site.")
    if name != "web-download":
        return name, None
    uri = method.get("uri")
    if not isinstance(uri, str) or not uri:
        raise errors.BadRequest("The web-download method requires a 'uri'.")
    worker().egress_policy.check_url(uri)
    return name, uri
