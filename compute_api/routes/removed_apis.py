"""Routes of APIs that Nova removed: 410 at every microversion."""

from flask import Response

from app.core import errors
from compute_api.routes.base.blueprint import compute

REMOVED = (
    "os-cells",
    "os-certificates",
    "os-cloudpipe",
    "os-fping",
    "os-agents",
    "os-consoles",
    "os-fixed-ips",
    "os-floating-ip-dns",
    "os-floating-ips-bulk",
    "os-security-group-default-rules",
)
"""Resources that Nova answers with 410 at every microversion."""

METHODS = ["GET", "POST", "PUT", "DELETE"]


def removed(rest: str = "") -> Response:  # noqa: ARG001
    raise errors.Gone("This resource is no longer available. No forwarding address is given.")


removed.rule = "os_compute_api:extensions"  # type: ignore[attr-defined]

for name in REMOVED:
    compute.add_url_rule(f"/{name}", "removed", removed, methods=METHODS)
    compute.add_url_rule(f"/{name}/<path:rest>", "removed", removed, methods=METHODS)
compute.add_url_rule("/servers/<rest>/os-virtual-interfaces", "removed", removed, methods=["GET"])
compute.add_url_rule("/servers/<rest>/consoles", "removed", removed, methods=["GET", "POST"])
compute.add_url_rule("/os-networks", "removed", removed, methods=["POST"])
compute.add_url_rule("/os-networks/<path:rest>", "removed", removed, methods=["POST", "DELETE"])
compute.add_url_rule("/os-tenant-networks", "removed", removed, methods=["POST"])
compute.add_url_rule("/os-tenant-networks/<rest>", "removed", removed, methods=["DELETE"])
