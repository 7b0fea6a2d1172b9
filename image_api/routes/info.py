"""Discovery and usage: JSON schemas, import methods, stores, quota usage, empty metadata definitions."""

from flask import Blueprint, Response, g

from app.core import errors
from app.web.context import database, settings
from app.web.policy import require
from app.web.responses import json
from image_api import images
from image_api.routes.dependencies import IMPORT_METHODS
from image_api.views.schemas import SCHEMAS

blueprint = Blueprint("image_info", __name__, url_prefix="/image/v2")


@blueprint.get("/schemas/<name>")
@require("get_image_schema")
def schema(name: str) -> Response:
    if name not in SCHEMAS:
        raise errors.NotFound(f"There is no schema {name}.")
    return json(SCHEMAS[name])


@blueprint.get("/info/import")
@require("get_import_info")
def import_methods() -> Response:
    methods = {"description": "Import methods available.", "type": "array", "value": list(IMPORT_METHODS)}
    return json({"import-methods": methods})


@blueprint.get("/info/stores")
@require("get_import_info")
def stores() -> Response:
    raise errors.NotFound("Multi backend is not supported at this site.")


@blueprint.get("/info/usage")
@require("get_usage")
def usage() -> Response:
    quota = settings().image_quota_gib
    with database().reading() as session:
        used = images.used_bytes(session, g.caller.project)
        count = images.count(session, g.caller.project)
    return json(
        {
            "usage": {
                "image_size_total": {"limit": quota * 1024 if quota >= 0 else -1, "usage": used >> 20},
                "image_count_total": {"limit": -1, "usage": count},
            }
        }
    )


@blueprint.get("/metadefs/namespaces")
@require("get_metadef_namespaces")
def namespaces() -> Response:
    """Return an empty list; dashboards request it."""
    return json({"namespaces": [], "first": "/v2/metadefs/namespaces", "schema": "/v2/schemas/metadefs/namespaces"})


@blueprint.get("/metadefs/resource_types")
@require("list_metadef_resource_types")
def resource_types() -> Response:
    return json({"resource_types": []})


@blueprint.route("/metadefs/<path:_rest>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
@blueprint.get("/schemas/metadefs/<path:_rest>", endpoint="metadef_schemas")
@require("get_metadef_namespaces")
def metadefs(_rest: str) -> Response:
    raise errors.NotFound("Metadata definitions are not supported.")


@blueprint.route("/cache", methods=["GET", "DELETE"])
@blueprint.route("/cache/<image_id>", methods=["PUT", "DELETE"], endpoint="cached_image")
@require("get_image_schema")
def cache(image_id: str = "") -> Response:  # noqa: ARG001
    """Return 404 with the message of a Glance without a cache."""
    raise errors.NotFound("Caching via API is not supported at this site.")


@blueprint.get("/images/<image_id>/locations")
@blueprint.post("/images/<image_id>/locations", endpoint="add_location")
@require("get_image_location")
def locations(image_id: str) -> Response:  # noqa: ARG001
    raise errors.Forbidden("Image locations are not exposed and cannot be set; upload or import the image.")
