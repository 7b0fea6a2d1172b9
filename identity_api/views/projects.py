"""How projects and domains look."""

from typing import Any

from identity_api.models import Project
from identity_api.views.common import with_self_link

Shown = dict[str, Any]


def project(found: Project) -> Shown:
    """A project, or a domain seen as a project."""
    return with_self_link(
        "projects",
        found.id,
        {
            **found.extra,
            "id": found.id,
            "name": found.name,
            "domain_id": found.domain_id,
            "description": found.description,
            "enabled": found.enabled,
            "parent_id": found.parent_id,
            "is_domain": found.is_domain,
            "tags": found.tags,
            "options": found.options,
        },
    )


def domain(found: Project) -> Shown:
    return with_self_link(
        "domains",
        found.id,
        {
            **found.extra,
            "id": found.id,
            "name": found.name,
            "description": found.description,
            "enabled": found.enabled,
            "tags": found.tags,
            "options": found.options,
        },
    )
