"""Version documents of the compute API.

https://docs.openstack.org/api-ref/compute/#api-versions
"""

from typing import Any

from flask import Blueprint, Response

from app.web.authentication import public
from app.web.links import url
from app.web.microversion import COMPUTE
from app.web.responses import json

blueprint = Blueprint("compute_versions", __name__, url_prefix="/compute")


def _legacy() -> dict[str, Any]:
    """Return the entry of v2.0, which is v2.1 without microversions."""
    return {
        "id": "v2.0",
        "status": "SUPPORTED",
        "version": "",
        "min_version": "",
        "updated": "2011-01-21T11:33:21Z",
        "links": [{"rel": "self", "href": url("/compute/v2/")}],
    }


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
    return json({"versions": [_legacy(), _version()]})


@blueprint.get("/v2")
@public
def legacy_version() -> Response:
    return _render(_legacy(), "2")


@blueprint.get("/v2.1")
@public
def version() -> Response:
    return _render(_version(), "2.1")


def _render(document: dict[str, Any], number: str) -> Response:
    document["links"].append(
        {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/api-ref/compute/"}
    )
    document["media-types"] = [
        {"base": "application/json", "type": f"application/vnd.openstack.compute+json;version={number}"}
    ]
    return json({"version": document})
