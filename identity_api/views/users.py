"""Response bodies of users and groups."""

from typing import Any

from identity_api.models import Group, User
from identity_api.views.common import with_self_link
from identity_api.views.tokens import format_time

JsonObject = dict[str, Any]


def user(row: User) -> JsonObject:
    """Render a user; `default_project_id` is omitted if unset, as in Keystone."""
    rendered = {
        **row.extra,
        "id": row.id,
        "name": row.name,
        "domain_id": row.domain_id,
        "enabled": row.enabled,
        "password_expires_at": format_time(row.password_expires_at),
        "options": row.options,
    }
    if row.default_project_id is not None:
        rendered["default_project_id"] = row.default_project_id
    return with_self_link("users", row.id, rendered)


def group(row: Group) -> JsonObject:
    return with_self_link(
        "groups",
        row.id,
        {
            **row.extra,
            "id": row.id,
            "name": row.name,
            "domain_id": row.domain_id,
            "description": row.description,
        },
    )
