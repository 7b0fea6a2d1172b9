"""/v2.0/extensions: what of Neutron's optional parts is really here."""

from typing import Any

from flask import Blueprint, Response

from app.core.errors import NotFound
from app.web.policy import require
from app.web.responses import json
from network_api.routes.params.list_params import select_fields

blueprint = Blueprint("network_extensions", __name__)

EXTENSIONS = {
    "allowed-address-pairs": ("Allowed Address Pairs", "A server may send from more addresses than its own."),
    "default-subnetpools": ("Default Subnetpools", "A subnet gets its prefix from the default pool when asked to."),
    "empty-string-filtering": ("Empty String Filtering Extension", "Lists can be filtered by an empty value."),
    "filter-validation": ("Filter parameters validation", "An unknown filter is an error."),
    "ip-substring-filtering": ("IP address substring filtering", "Ports are found by a part of their address."),
    "network-ip-availability": ("Network IP Availability", "Operators see how many addresses a network has used."),
    "net-mtu": ("Network MTU", "A network says how large its packets may be."),
    "pagination": ("Pagination support", "Lists have pages."),
    "project-id": ("project_id field enabled", "Owners are called project_id."),
    "quotas": ("Quota management support", "Quotas of a project can be read and changed."),
    "quota_details": ("Quota details management support", "Quotas are shown with what is used of them."),
    "revision-if-match": ("If-Match constraints based on revision_number", "Changes can depend on a revision."),
    "sixstack-ipv4": ("IPv4 addresses of ports", "An IPv4 address is mapped to a port by NAT64: `ipv4_address`."),
    "sixstack-isolated": ("Isolated networks", "Servers of a network do not reach each other: `isolated`."),
    "sorting": ("Sorting support", "Lists can be ordered."),
    "standard-attr-description": ("standard-attr-description", "Resources have a description."),
    "standard-attr-revisions": ("Resource revision numbers", "Resources count their changes: revision_number."),
    "standard-attr-tag": ("Tag support for resources with standard attribute", "Resources have tags."),
    "standard-attr-timestamp": ("Resource timestamps", "Resources say when they were made and changed."),
    "tag-creation": ("Tag creation extension", "Tags are added to those that are there."),
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
