"""Version documents of compute.

https://docs.openstack.org/api-ref/compute/#api-versions
"""

from typing import Any

from flask import Blueprint, Response

from app.web.authentication import public
from app.web.links import url
from app.web.microversion import COMPUTE
from app.web.responses import json

blueprint = Blueprint("compute_versions", __name__, url_prefix="/compute")


def _version() -> dict[str, Any]:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": str(COMPUTE.maximum),
        "min_version": str(COMPUTE.minimum),
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": url("/compute/v2.1/")}],
    }


@blueprint.get("/")
@public
def versions() -> Response:
    return json({"versions": [_version()]})


@blueprint.get("/v2.1")
@public
def version() -> Response:
    document = _version()
    document["links"].append(
        {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/api-ref/compute/"}
    )
    document["media-types"] = [
        {"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}
    ]
    return json({"version": document})
