"""Stored credentials of users: EC2 key pairs and opaque blobs, encrypted at rest.

They grant no access: no API of this cloud accepts EC2 signatures.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from app.security.secret_cipher import SecretCipher
from identity_api.conflicts import conflict_on_duplicate
from identity_api.directory import projects, users
from identity_api.listing import Page, list_page
from identity_api.models import Credential

EC2 = "ec2"


def find(session: Session, credential_id: str) -> Credential:
    credential = session.get(Credential, credential_id)
    if credential is None:
        raise errors.NotFound(f"Could not find credential: {credential_id}.")
    return credential


def find_ec2(session: Session, user_id: str, access: str) -> Credential:
    """Return the user's EC2 credential with this access key."""
    credential = session.get(Credential, _ec2_id(access))
    if credential is None or credential.user_id != user_id or credential.kind != EC2:
        raise errors.NotFound(f"Could not find credential: {access}.")
    return credential


def list_credentials(session: Session, arguments: Mapping[str, str]) -> Page[Credential]:
    """List credentials by creation time; filters: user_id, type."""
    return list_page(
        session,
        select(Credential),
        arguments,
        sort_key=Credential.created_at,
        id_column=Credential.id,
        filters={"user_id": Credential.user_id, "type": Credential.kind},
    )


def list_ec2(session: Session, user_id: str) -> Sequence[Credential]:
    """List the EC2 credentials of a user by creation time."""
    query = select(Credential).where(Credential.user_id == user_id, Credential.kind == EC2)
    return session.scalars(query.order_by(Credential.created_at)).all()


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
    """Create a credential; an EC2 credential's id is the hash of its access key.

    Raises BadRequest, Conflict, NotFound.
    """
    users.find(session, user_id)
    id_ = uuid4().hex
    if kind.lower() == EC2:
        if project_id is None:
            raise errors.BadRequest("Expecting to find project_id in credential.")
        id_ = _ec2_id(_parse_ec2_keys(blob)["access"])
    if project_id is not None:
        projects.find(session, project_id)
    credential = Credential(
        id=id_,
        user_id=user_id,
        project_id=project_id,
        kind=kind,
        sealed=cipher.encrypt(blob, now),
        extra=dict(extra),
        created_at=now,
    )
    with conflict_on_duplicate(session, "credential", id_):
        session.add(credential)
    return credential


def create_ec2(session: Session, cipher: SecretCipher, now: datetime, user_id: str, project_id: str) -> Credential:
    """Create an EC2 key pair."""
    blob = orjson.dumps({"access": uuid4().hex, "secret": secrets.token_hex(32), "trust_id": None}).decode()
    return create(session, cipher, now, user_id=user_id, project_id=project_id, kind=EC2, blob=blob, extra={})


def change_blob(cipher: SecretCipher, credential: Credential, blob: str, now: datetime) -> None:
    """Replace the blob. Raises BadRequest if an EC2 credential gets no EC2 key pair."""
    if credential.kind.lower() == EC2:
        _parse_ec2_keys(blob)
    credential.sealed = cipher.encrypt(blob, now)


def change_extra(credential: Credential, extra: Mapping[str, Any]) -> None:
    """Merge extra fields."""
    if extra:
        credential.extra = {**credential.extra, **extra}


def check_unchanged(credential: Credential, changes: Mapping[str, Any]) -> None:
    """Raise BadRequest for a change of type, user or project."""
    current = {"type": credential.kind, "user_id": credential.user_id, "project_id": credential.project_id}
    for name, value in changes.items():
        if value != current[name]:
            raise errors.BadRequest(f"{name} can not be updated for credential")


def remove(session: Session, credential: Credential) -> None:
    """Delete a credential."""
    session.delete(credential)


def decrypt_ec2_keys(cipher: SecretCipher, credential: Credential) -> Mapping[str, Any]:
    """Decrypt an EC2 credential: access key, secret and other fields."""
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
