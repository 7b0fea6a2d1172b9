"""Dependencies of the image routes: store, import worker, limits, policy targets, body parsing."""

from typing import Any, cast

from flask import current_app, g, request
from sqlalchemy import Row
from sqlalchemy.orm import Session

from app.core import errors
from app.core.settings import Settings
from app.web.bodies import json_body
from app.web.context import settings
from app.web.policy import enforce
from image_api import images
from image_api.imports.worker import ImportWorker
from image_api.ingest.ingest import UNLIMITED, Limits
from image_api.models import Image
from image_api.stores.file import Store

IMPORT_METHODS = ("glance-direct", "web-download")


def store() -> Store:
    return cast(Store, current_app.extensions["sixstack.images.store"])


def worker() -> ImportWorker:
    return cast(ImportWorker, current_app.extensions["sixstack.images.worker"])


def upload_limits(used: int) -> Limits:
    """Return the limits of an upload; `used` is the bytes that the project's images use."""
    return make_limits(settings(), used)


def make_limits(configured: Settings, used: int) -> Limits:
    largest = configured.image_max_gib << 30
    quota = configured.image_quota_gib
    most = largest if quota < 0 else max(0, min(largest, (quota << 30) - used))
    return Limits(most, largest, UNLIMITED if quota < 0 else quota << 30)


def policy_target(image: Image | Row[Any]) -> dict[str, Any]:
    """Return the policy target of an image that is visible to the caller."""
    member = g.caller.project_id if image.visibility == "shared" and image.owner != g.caller.project_id else None
    return {
        "project_id": image.owner,
        "owner": image.owner,
        "visibility": image.visibility,
        "member_id": member,
        "user_id": None,
    }


def find_image(session: Session, image_id: str, rule: str) -> Image:
    """Return an image that is visible to the caller and allowed by the policy rule. Raises NotFound, Forbidden."""
    image = images.find_visible(session, g.caller, image_id)
    enforce(rule, policy_target(image))
    return image


def refuse_nul() -> None:
    """Refuse NUL characters, which PostgreSQL cannot store. Raises NotFound, BadRequest."""
    if "\0" in request.path:
        raise errors.NotFound("The resource could not be found.")
    if b"%00" in request.query_string:
        raise errors.BadRequest("A query must not contain NUL characters.")


def parse_body() -> Any:
    """Parse the JSON body. Raises BadRequest when it is invalid or contains NUL characters."""
    body = json_body()
    if _has_nul(body):
        raise errors.BadRequest("The body must not contain NUL characters.")
    return body


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(name) or _has_nul(item) for name, item in value.items())
    return isinstance(value, list) and any(_has_nul(item) for item in value)


def parse_object() -> dict[str, Any]:
    """Parse a JSON object in the body. Raises UnsupportedMedia, BadRequest."""
    if request.mimetype != "application/json":
        raise errors.UnsupportedMedia("The body must be application/json.")
    body = parse_body()
    if not isinstance(body, dict):
        raise errors.BadRequest("The body must be a JSON object.")
    return body
