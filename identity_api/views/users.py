"""How users and groups look."""

from typing import Any

from identity_api.models import Group, User
from identity_api.views.common import with_self_link
from identity_api.views.tokens import format_time

Shown = dict[str, Any]


def user(found: User) -> Shown:
    """A user; `default_project_id` is there only when there is one, as with Keystone."""
    shown = {
        **found.extra,
        "id": found.id,
        "name": found.name,
        "domain_id": found.domain_id,
        "enabled": found.enabled,
        "password_expires_at": format_time(found.password_expires_at),
        "options": found.options,
    }
    if found.default_project_id is not None:
        shown["default_project_id"] = found.default_project_id
    return with_self_link("users", found.id, shown)


def group(found: Group) -> Shown:
    return with_self_link(
        "groups",
        found.id,
        {
            **found.extra,
            "id": found.id,
            "name": found.name,
            "domain_id": found.domain_id,
            "description": found.description,
        },
    )
