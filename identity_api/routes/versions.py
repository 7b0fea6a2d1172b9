"""Version discovery documents."""

from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response

from app.web.authentication import public
from app.web.links import url
from app.web.responses import json

blueprint = Blueprint("identity_versions", __name__)


@blueprint.get("/identity/")
@public
def versions() -> Response:
    return json(
        {"versions": {"values": [_version()]}},
        HTTPStatus.MULTIPLE_CHOICES,
        {"Location": url("/identity/v3/")},
    )


@blueprint.get("/identity/v3/")
@public
def version() -> Response:
    return json({"version": _version()})


def _version() -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": url("/identity/v3/")}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }
