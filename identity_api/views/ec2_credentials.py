"""Response bodies of stored credentials and EC2 key pairs."""

from collections.abc import Mapping
from typing import Any

from identity_api.models import Credential
from identity_api.views.common import with_self_link

JsonObject = dict[str, Any]


def credential(row: Credential, blob: str) -> JsonObject:
    return with_self_link(
        "credentials",
        row.id,
        {
            **row.extra,
            "id": row.id,
            "type": row.kind,
            "blob": blob,
            "user_id": row.user_id,
            "project_id": row.project_id,
        },
    )


def ec2(row: Credential, keys: Mapping[str, Any]) -> JsonObject:
    rendered = {
        "access": keys["access"],
        "secret": keys.get("secret"),
        "trust_id": keys.get("trust_id"),
        "user_id": row.user_id,
        "tenant_id": row.project_id,
    }
    return with_self_link(f"users/{row.user_id}/credentials/OS-EC2", keys["access"], rendered)
