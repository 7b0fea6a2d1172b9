"""Version discovery of the network API."""

from flask import Blueprint, Response

from app.web.authentication import public
from app.web.links import url
from app.web.responses import json

blueprint = Blueprint("network_versions", __name__)

RESOURCES = {
    "network": "networks",
    "subnet": "subnets",
    "port": "ports",
    "subnetpool": "subnetpools",
    "quota": "quotas",
    "extension": "extensions",
}


@blueprint.get("/network")
@public
def versions() -> Response:
    links = [{"rel": "self", "href": url("/network/v2.0/")}]
    return json({"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]})


@blueprint.get("/network/v2.0")
@public
def resources() -> Response:
    return json(
        {
            "resources": [
                {
                    "name": name,
                    "collection": collection,
                    "links": [{"rel": "self", "href": url(f"/network/v2.0/{collection}")}],
                }
                for name, collection in RESOURCES.items()
            ]
        }
    )
