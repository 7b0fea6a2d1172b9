"""How application credentials and access rules look."""

from collections.abc import Mapping
from typing import Any

from identity_api.models import AccessRuleRow, ApplicationCredential, Role
from identity_api.views.common import with_self_link

Shown = dict[str, Any]


def application_credential(
    found: ApplicationCredential,
    roles: Mapping[str, Role],
    rules: Mapping[str, AccessRuleRow],
    secret: str | None = None,
) -> Shown:
    """An application credential; with its secret only in the answer that makes it."""
    shown: Shown = {
        "id": found.id,
        "name": found.name,
        "description": found.description,
        "user_id": found.user_id,
        "project_id": found.project_id,
        "system": None,
        "expires_at": found.expires_at.strftime("%Y-%m-%dT%H:%M:%S.%f") if found.expires_at else None,
        "unrestricted": found.unrestricted,
        "roles": [
            {"id": role.id, "name": role.name, "domain_id": role.domain_id or None}
            for role_id in found.role_ids
            if (role := roles.get(role_id)) is not None
        ],
    }
    if found.access_rule_ids:
        shown["access_rules"] = [_rule(rules[id_]) for id_ in found.access_rule_ids if id_ in rules]
    if secret is not None:
        shown["secret"] = secret
    return with_self_link(f"users/{found.user_id}/application_credentials", found.id, shown)


def access_rule(found: AccessRuleRow) -> Shown:
    return with_self_link(f"users/{found.user_id}/access_rules", found.id, _rule(found))


def _rule(found: AccessRuleRow) -> Shown:
    return {"id": found.id, "service": found.service, "method": found.method, "path": found.path}
