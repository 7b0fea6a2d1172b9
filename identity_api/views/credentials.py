"""Response bodies of application credentials and access rules."""

from typing import Any

from identity_api.directory.application_credentials import Details
from identity_api.models import AccessRuleRow
from identity_api.views.common import with_self_link

JsonObject = dict[str, Any]


def application_credential(details: Details, secret: str | None = None) -> JsonObject:
    """Render an application credential; the secret is included only in the response to its creation."""
    row, roles, rules = details.credential, details.roles, details.rules
    rendered: JsonObject = {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "user_id": row.user_id,
        "project_id": row.project_id,
        "system": None,
        "expires_at": row.expires_at.strftime("%Y-%m-%dT%H:%M:%S.%f") if row.expires_at else None,
        "unrestricted": row.unrestricted,
        "roles": [
            {"id": role.id, "name": role.name, "domain_id": role.domain_id or None}
            for role_id in row.role_ids
            if (role := roles.get(role_id)) is not None
        ],
    }
    if row.access_rule_ids:
        rendered["access_rules"] = [_rule(rules[id_]) for id_ in row.access_rule_ids if id_ in rules]
    if secret is not None:
        rendered["secret"] = secret
    return with_self_link(f"users/{row.user_id}/application_credentials", row.id, rendered)


def access_rule(row: AccessRuleRow) -> JsonObject:
    return with_self_link(f"users/{row.user_id}/access_rules", row.id, _rule(row))


def _rule(row: AccessRuleRow) -> JsonObject:
    return {"id": row.id, "service": row.service, "method": row.method, "path": row.path}
