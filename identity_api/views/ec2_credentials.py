"""Response bodies of stored credentials and EC2 key pairs."""

from typing import Any

from app.security.secret_cipher import SecretCipher
from identity_api.directory.credentials import decrypt_ec2_keys
from identity_api.models import Credential
from identity_api.views.common import with_self_link

JsonObject = dict[str, Any]


def credential(row: Credential, cipher: SecretCipher) -> JsonObject:
    return with_self_link(
        "credentials",
        row.id,
        {
            **row.extra,
            "id": row.id,
            "type": row.kind,
            "blob": cipher.decrypt(row.sealed),
            "user_id": row.user_id,
            "project_id": row.project_id,
        },
    )


def ec2(row: Credential, cipher: SecretCipher) -> JsonObject:
    keys = decrypt_ec2_keys(cipher, row)
    rendered = {
        "access": keys["access"],
        "secret": keys.get("secret"),
        "trust_id": keys.get("trust_id"),
        "user_id": row.user_id,
        "tenant_id": row.project_id,
    }
    return with_self_link(f"users/{row.user_id}/credentials/OS-EC2", keys["access"], rendered)
