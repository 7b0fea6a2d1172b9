"""How limits look."""

from typing import Any

from identity_api.models import Limit, RegisteredLimit
from identity_api.views.common import with_self_link

Shown = dict[str, Any]


def registered(found: RegisteredLimit) -> Shown:
    return with_self_link(
        "registered_limits",
        found.id,
        {
            "id": found.id,
            "service_id": found.service_id,
            "region_id": found.region_id,
            "resource_name": found.resource_name,
            "default_limit": found.default_limit,
            "description": found.description,
        },
    )


def limit(found: Limit, registered_limit: RegisteredLimit) -> Shown:
    return with_self_link(
        "limits",
        found.id,
        {
            "id": found.id,
            "project_id": found.project_id,
            "domain_id": found.domain_id,
            "service_id": registered_limit.service_id,
            "region_id": registered_limit.region_id,
            "resource_name": registered_limit.resource_name,
            "resource_limit": found.resource_limit,
            "description": found.description,
        },
    )
