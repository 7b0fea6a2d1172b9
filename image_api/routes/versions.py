"""Version discovery of the image API. 2.8 and versions above 2.9 need multiple stores, which are not supported."""

from flask import Blueprint, Response

from app.web.authentication import public
from app.web.links import url
from app.web.responses import json

blueprint = Blueprint("image_versions", __name__, url_prefix="/image")

CURRENT = "v2.9"
SUPPORTED = ("v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0")


def _versions() -> dict[str, object]:
    links = [{"rel": "self", "href": url("/image/v2/")}]
    numbers = ((CURRENT, "CURRENT"), *((name, "SUPPORTED") for name in SUPPORTED))
    return {"versions": [{"id": name, "status": status, "links": links} for name, status in numbers]}


@blueprint.get("", endpoint="choices")
@blueprint.get("/", endpoint="choices_slash")
@public
def choices() -> Response:
    return json(_versions(), 300)


@blueprint.get("/versions")
@blueprint.get("/v2")
@public
def versions() -> Response:
    return json(_versions())
