"""Response bodies of projects and domains."""

from typing import Any

from app.web.links import url
from identity_api.models import Project
from identity_api.views.common import with_self_link

JsonObject = dict[str, Any]


def project(row: Project) -> JsonObject:
    """Render a project, or a domain in its role as a project."""
    return with_self_link(
        "projects",
        row.id,
        {
            **row.extra,
            "id": row.id,
            "name": row.name,
            "domain_id": row.domain_id,
            "description": row.description,
            "enabled": row.enabled,
            "parent_id": row.parent_id,
            "is_domain": row.is_domain,
            "tags": row.tags,
            "options": row.options,
        },
    )


def wrapped_project(row: Project) -> JsonObject:
    """Render a project as an element of the lists of parents and of the subtree."""
    return {"project": project(row)}


def tags(row: Project) -> JsonObject:
    link = url(f"/identity/v3/projects/{row.id}/tags")
    return {"tags": row.tags, "links": {"next": None, "self": link, "previous": None}}


def domain(row: Project) -> JsonObject:
    return with_self_link(
        "domains",
        row.id,
        {
            **row.extra,
            "id": row.id,
            "name": row.name,
            "description": row.description,
            "enabled": row.enabled,
            "tags": row.tags,
            "options": row.options,
        },
    )
