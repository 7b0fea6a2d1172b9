"""Response bodies of services, endpoints and regions."""

from typing import Any

from app.web.links import url
from identity_api.models import CatalogService, Endpoint, Region
from identity_api.views.common import with_self_link

JsonObject = dict[str, Any]


def service(row: CatalogService) -> JsonObject:
    rendered = {
        **row.extra,
        "id": row.id,
        "type": row.type,
        "enabled": row.enabled,
    }
    if row.name is not None:
        rendered["name"] = row.name
    if row.description is not None:
        rendered["description"] = row.description
    return with_self_link("services", row.id, rendered)


def endpoint(row: Endpoint) -> JsonObject:
    """Render an endpoint; a path is completed with the public URL or the request's host."""
    return with_self_link(
        "endpoints",
        row.id,
        {
            **row.extra,
            "id": row.id,
            "service_id": row.service_id,
            "interface": row.interface,
            "region": row.region_id,
            "region_id": row.region_id,
            "enabled": row.enabled,
            "url": url(row.url) if row.url.startswith("/") else row.url,
        },
    )


def region(row: Region) -> JsonObject:
    return with_self_link(
        "regions",
        row.id,
        {
            **row.extra,
            "id": row.id,
            "description": row.description,
            "parent_region_id": row.parent_region_id,
        },
    )
