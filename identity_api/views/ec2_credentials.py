"""How credentials look that identity keeps for others."""

from collections.abc import Mapping
from typing import Any

from identity_api.models import Credential
from identity_api.views.common import with_self_link

Shown = dict[str, Any]


def credential(found: Credential, blob: str) -> Shown:
    return with_self_link(
        "credentials",
        found.id,
        {
            **found.extra,
            "id": found.id,
            "type": found.kind,
            "blob": blob,
            "user_id": found.user_id,
            "project_id": found.project_id,
        },
    )


def ec2(found: Credential, keys: Mapping[str, Any]) -> Shown:
    shown = {
        "access": keys["access"],
        "secret": keys.get("secret"),
        "trust_id": keys.get("trust_id"),
        "user_id": found.user_id,
        "tenant_id": found.project_id,
    }
    return with_self_link(f"users/{found.user_id}/credentials/OS-EC2", keys["access"], shown)
