"""Response bodies of limits and registered limits."""

from typing import Any

from identity_api.models import Limit, RegisteredLimit
from identity_api.views.common import with_self_link

JsonObject = dict[str, Any]


def registered(row: RegisteredLimit) -> JsonObject:
    return with_self_link(
        "registered_limits",
        row.id,
        {
            "id": row.id,
            "service_id": row.service_id,
            "region_id": row.region_id,
            "resource_name": row.resource_name,
            "default_limit": row.default_limit,
            "description": row.description,
        },
    )


def limit(row: Limit, registered_limit: RegisteredLimit) -> JsonObject:
    return with_self_link(
        "limits",
        row.id,
        {
            "id": row.id,
            "project_id": row.project_id,
            "domain_id": row.domain_id,
            "service_id": registered_limit.service_id,
            "region_id": registered_limit.region_id,
            "resource_name": registered_limit.resource_name,
            "resource_limit": row.resource_limit,
            "description": row.description,
        },
    )
