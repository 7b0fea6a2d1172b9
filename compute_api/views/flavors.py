"""Views of flavors."""

from typing import Any

from app.web.microversion import Version, v
from compute_api.models import Flavor
from compute_api.views import links

DESCRIPTION_SINCE, EXTRA_SPECS_SINCE, NUMBERS_SINCE = v("2.55"), v("2.61"), v("2.75")


def brief(flavor: Flavor, version: Version) -> dict[str, Any]:
    """Render an entry of GET /flavors."""
    body: dict[str, Any] = {"id": flavor.id, "name": flavor.name, "links": links.of("flavors", flavor.id)}
    if version >= DESCRIPTION_SINCE:
        body["description"] = flavor.description
    return body


def show(flavor: Flavor, version: Version) -> dict[str, Any]:
    """Render a flavor with all fields."""
    body: dict[str, Any] = {
        "id": flavor.id,
        "name": flavor.name,
        "ram": flavor.ram,
        "disk": flavor.disk,
        "vcpus": flavor.vcpus,
        "swap": flavor.swap if flavor.swap or version >= NUMBERS_SINCE else "",
        "OS-FLV-EXT-DATA:ephemeral": flavor.ephemeral,
        "OS-FLV-DISABLED:disabled": False,
        "os-flavor-access:is_public": flavor.is_public,
        "rxtx_factor": flavor.rxtx_factor,
        "links": links.of("flavors", flavor.id),
    }
    if version >= DESCRIPTION_SINCE:
        body["description"] = flavor.description
    if version >= EXTRA_SPECS_SINCE:
        body["extra_specs"] = flavor.extra_specs
    return body
