"""JSON representation of import tasks, as in Glance's task API."""

from collections.abc import Sequence
from typing import Any

from image_api.models import ImageTask
from image_api.views.images import iso


def show(task: ImageTask) -> dict[str, Any]:
    """Render a task with all details."""
    method: dict[str, Any] = {"name": task.method}
    if task.uri:
        method["uri"] = task.uri
    return {
        **_short(task),
        "input": {"image_id": task.image_id, "import_req": {"method": method}},
        "result": {"image_id": task.image_id} if task.status == "success" else None,
        "message": task.message,
        "image_id": task.image_id,
        "request_id": task.request_id,
        "user_id": task.user_id,
    }


def index(tasks: Sequence[ImageTask]) -> dict[str, Any]:
    """Render a list of tasks without details."""
    return {"tasks": [_short(task) for task in tasks], "first": "/v2/tasks", "schema": "/v2/schemas/tasks"}


def _short(task: ImageTask) -> dict[str, Any]:
    body = {
        "id": task.id,
        "type": "api_image_import",
        "status": task.status,
        "owner": task.owner,
        "created_at": iso(task.created_at),
        "updated_at": iso(task.updated_at),
        "self": f"/v2/tasks/{task.id}",
        "schema": "/v2/schemas/task",
    }
    if task.expires_at:
        body["expires_at"] = iso(task.expires_at)
    return body
