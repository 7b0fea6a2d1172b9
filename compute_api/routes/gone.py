"""What Nova had and has not any more, or what this cloud has none of: 410, 404 or an empty list, as Nova says it."""

from flask import Response

from app import errors
from app.web.microversion import v
from app.web.policy import require
from app.web.responses import json
from compute_api.routes.blueprint import compute

REMOVED = ("os-cells", "os-certificates", "os-cloudpipe", "os-fping", "os-agents", "os-consoles")
"""Answered 410 by Nova at every microversion."""

EVERYTHING = ["GET", "POST", "PUT", "DELETE"]
SINCE_MIGRATION_PAGES, SINCE_MIGRATION_OWNERS = v("2.59"), v("2.80")


def removed(rest: str = "") -> Response:  # noqa: ARG001
    raise errors.Gone("This resource is no longer available. No forwarding address is given.")


removed.rule = "os_compute_api:extensions"  # type: ignore[attr-defined]

for name in REMOVED:
    compute.add_url_rule(f"/{name}", "removed", removed, methods=EVERYTHING)
    compute.add_url_rule(f"/{name}/<path:rest>", "removed", removed, methods=EVERYTHING)
compute.add_url_rule("/servers/<rest>/os-virtual-interfaces", "removed", removed, methods=["GET"])
compute.add_url_rule("/servers/<rest>/consoles", "removed", removed, methods=["GET", "POST"])


@compute.get("/extensions")
@require("os_compute_api:extensions")
def list_extensions() -> Response:
    return json({"extensions": []})


@compute.get("/extensions/<alias>")
@require("os_compute_api:extensions")
def show_extension(alias: str) -> Response:
    raise errors.NotFound(f"There is no extension {alias}: microversions say what there is.")
