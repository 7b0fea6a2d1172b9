"""How users and groups look."""

from typing import Any

from identity_api.models import Group, User
from identity_api.views.common import linked
from identity_api.views.tokens import moment

Shown = dict[str, Any]


def user(found: User) -> Shown:
    """A user; `default_project_id` is there only when there is one, as with Keystone."""
    shown = {
        **found.extra,
        "id": found.id,
        "name": found.name,
        "domain_id": found.domain_id,
        "enabled": found.enabled,
        "password_expires_at": moment(found.password_expires_at),
        "options": found.options,
    }
    if found.default_project_id is not None:
        shown["default_project_id"] = found.default_project_id
    return linked("users", found.id, shown)


def group(found: Group) -> Shown:
    return linked(
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
