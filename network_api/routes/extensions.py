"""/v2.0/extensions: the implemented extensions of Neutron."""

from typing import Any

from flask import Blueprint, Response

from app.core.errors import NotFound
from app.web.policy import require
from app.web.responses import json
from network_api.routes.params.list_params import select_fields

blueprint = Blueprint("network_extensions", __name__)

EXTENSIONS = {
    "allowed-address-pairs": ("Allowed Address Pairs", "Additional source addresses of a port."),
    "default-subnetpools": ("Default Subnetpools", "Subnets are allocated from the default pool on request."),
    "empty-string-filtering": ("Empty String Filtering Extension", "Lists can be filtered by an empty value."),
    "filter-validation": ("Filter parameters validation", "An unknown filter is an error."),
    "ip-substring-filtering": ("IP address substring filtering", "Ports can be filtered by a part of their address."),
    "network-ip-availability": ("Network IP Availability", "Number of used addresses per network, for operators."),
    "net-mtu": ("Network MTU", "Networks have an MTU."),
    "pagination": ("Pagination support", "Lists are paginated with limit and marker."),
    "project-id": ("project_id field enabled", "Resources have the field project_id."),
    "quotas": ("Quota management support", "Quotas per project."),
    "quota_details": ("Quota details management support", "Quotas with current usage."),
    "revision-if-match": ("If-Match constraints based on revision_number", "Conditional changes by revision number."),
    "sixstack-ipv4": ("IPv4 addresses of ports", "An IPv4 address is mapped to a port by NAT64: `ipv4_address`."),
    "sixstack-isolated": ("Isolated networks", "Servers of a network cannot reach each other: `isolated`."),
    "sorting": ("Sorting support", "Lists can be sorted."),
    "standard-attr-description": ("standard-attr-description", "Resources have a description."),
    "standard-attr-revisions": (
        "Resource revision numbers",
        "Each change increments revision_number.",
    ),
    "standard-attr-tag": ("Tag support for resources with standard attribute", "Resources have tags."),
    "standard-attr-timestamp": ("Resource timestamps", "Resources have created_at and updated_at."),
    "tag-creation": ("Tag creation extension", "POST adds tags to the existing ones."),
    "subnet_allocation": ("Subnet Allocation", "Subnets get their prefix from a subnet pool."),
}
UPDATED = "2026-11-21T00:00:00-00:00"


def _document(alias: str) -> dict[str, Any]:
    name, description = EXTENSIONS[alias]
    return {"alias": alias, "name": name, "description": description, "updated": UPDATED, "links": []}


@blueprint.get("/extensions")
@require("get_extension")
def index() -> Response:
    return json({"extensions": select_fields([_document(alias) for alias in EXTENSIONS])})


@blueprint.get("/extensions/<alias>")
@require("get_extension")
def show(alias: str) -> Response:
    if alias not in EXTENSIONS:
        error = NotFound(f"Extension with alias {alias} does not exist")
        raise error
    return json({"extension": _document(alias)})
