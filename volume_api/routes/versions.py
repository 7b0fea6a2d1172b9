"""Version discovery of the block storage API."""

from typing import Any

from flask import Blueprint, Response

from app.web.authentication import public
from app.web.links import url
from app.web.microversion import VOLUME
from app.web.responses import json

blueprint = Blueprint("volume_versions", __name__)


@blueprint.get("/volume")
@public
def versions() -> Response:
    return json(_document(), 300)


@blueprint.get("/volume/v3")
@public
def version() -> Response:
    return json(_document())


def _document() -> dict[str, Any]:
    return {
        "versions": [
            {
                "id": "v3.0",
                "status": "CURRENT",
                "version": str(VOLUME.maximum),
                "min_version": str(VOLUME.minimum),
                "updated": "2026-11-21T00:00:00Z",
                "links": [
                    {"rel": "self", "href": url("/volume/v3/")},
                    {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
                ],
                "media-types": [
                    {"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}
                ],
            }
        ]
    }
