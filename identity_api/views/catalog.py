"""How services, endpoints and regions look."""

from typing import Any

from app.web.links import url
from identity_api.models import CatalogService, Endpoint, Region
from identity_api.views.common import with_self_link

Shown = dict[str, Any]


def service(found: CatalogService) -> Shown:
    shown = {
        **found.extra,
        "id": found.id,
        "type": found.type,
        "enabled": found.enabled,
    }
    if found.name is not None:
        shown["name"] = found.name
    if found.description is not None:
        shown["description"] = found.description
    return with_self_link("services", found.id, shown)


def endpoint(found: Endpoint) -> Shown:
    """An endpoint; one of this installation has the host that the client came by."""
    return with_self_link(
        "endpoints",
        found.id,
        {
            **found.extra,
            "id": found.id,
            "service_id": found.service_id,
            "interface": found.interface,
            "region": found.region_id,
            "region_id": found.region_id,
            "enabled": found.enabled,
            "url": url(found.url) if found.url.startswith("/") else found.url,
        },
    )


def region(found: Region) -> Shown:
    return with_self_link(
        "regions",
        found.id,
        {
            **found.extra,
            "id": found.id,
            "description": found.description,
            "parent_region_id": found.parent_region_id,
        },
    )
