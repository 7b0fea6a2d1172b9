"""Credentials that identity keeps for their owners: EC2 key pairs and blobs of other kinds.

They open nothing here: no API of this cloud takes EC2 signatures. They are kept encrypted, with a key that stays.
"""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy.orm import Session

from app.core import errors
from app.security.secret_cipher import SecretCipher
from identity_api.conflicts import conflict_on_duplicate
from identity_api.directory import projects, users
from identity_api.models import Credential

EC2 = "ec2"


def find(session: Session, credential_id: str) -> Credential:
    found = session.get(Credential, credential_id)
    if found is None:
        raise errors.NotFound(f"Could not find credential: {credential_id}.")
    return found


def find_ec2(session: Session, user_id: str, access: str) -> Credential:
    """The user's EC2 credential with this access key."""
    found = session.get(Credential, _ec2_id(access))
    if found is None or found.user_id != user_id or found.kind != EC2:
        raise errors.NotFound(f"Could not find credential: {access}.")
    return found


def create(
    session: Session,
    cipher: SecretCipher,
    now: datetime,
    *,
    user_id: str,
    project_id: str | None,
    kind: str,
    blob: str,
    extra: Mapping[str, Any],
) -> Credential:
    """A new credential; the id of an EC2 one follows from its access key. Raises BadRequest, Conflict, NotFound."""
    users.find(session, user_id)
    id_ = uuid4().hex
    if kind.lower() == EC2:
        if project_id is None:
            raise errors.BadRequest("Expecting to find project_id in credential.")
        id_ = _ec2_id(_parse_ec2_keys(blob)["access"])
    if project_id is not None:
        projects.find(session, project_id)
    made = Credential(
        id=id_,
        user_id=user_id,
        project_id=project_id,
        kind=kind,
        sealed=cipher.encrypt(blob, now),
        extra=dict(extra),
        created_at=now,
    )
    with conflict_on_duplicate(session, "credential", id_):
        session.add(made)
    return made


def create_ec2(session: Session, cipher: SecretCipher, now: datetime, user_id: str, project_id: str) -> Credential:
    """A new EC2 key pair."""
    blob = orjson.dumps({"access": uuid4().hex, "secret": secrets.token_hex(32), "trust_id": None}).decode()
    return create(session, cipher, now, user_id=user_id, project_id=project_id, kind=EC2, blob=blob, extra={})


def change_blob(cipher: SecretCipher, credential: Credential, blob: str, now: datetime) -> None:
    """Raises BadRequest for what is no EC2 key pair where one is wanted."""
    if credential.kind.lower() == EC2:
        _parse_ec2_keys(blob)
    credential.sealed = cipher.encrypt(blob, now)


def decrypt_ec2_keys(cipher: SecretCipher, credential: Credential) -> Mapping[str, Any]:
    """Access key, secret and what else an EC2 credential holds."""
    return _parse_ec2_keys(cipher.decrypt(credential.sealed))


def _parse_ec2_keys(blob: str) -> Mapping[str, Any]:
    try:
        keys = orjson.loads(blob)
    except orjson.JSONDecodeError:
        raise errors.BadRequest("Invalid blob in credential") from None
    if not isinstance(keys, dict) or not isinstance(keys.get("access"), str):
        raise errors.BadRequest("Expecting to find access in credential.")
    return keys


def _ec2_id(access: str) -> str:
    return hashlib.sha256(access.encode()).hexdigest()
