"""Credentials of hosts on other computers: a secret each, made when the host is added.

The database has its SHA-256, which is the key of a host's proofs and therefore sealed: rows of the database, or a
backup of it, prove nothing without `state/keys`.
"""

import hashlib
import hmac
import logging
import re
import secrets
from datetime import datetime

from cryptography.fernet import InvalidToken
from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from app import errors
from app.seal import Seal
from compute_api import aside, operations
from compute_api.models import HostCredential, Operation, Server

log = logging.getLogger(__name__)

PLAIN = re.compile("[0-9a-f]{64}")


def create(session: Session, seal: Seal, now: datetime, name: str) -> str:
    """A new secret for the host; invalidates an older one."""
    secret = secrets.token_urlsafe(32)
    remove(session, name)
    session.add(HostCredential(host=name, sealed_hash=seal.close(_hash(secret), now), created_at=now))
    return secret


def seal_old(session: Session, seal: Seal, now: datetime) -> None:
    """Seal the hashes that were stored as they are by earlier versions. Idempotent."""
    for credential in session.scalars(select(HostCredential)):
        if PLAIN.fullmatch(credential.sealed_hash):
            credential.sealed_hash = seal.close(credential.sealed_hash, now)


def authenticate(session: Session, seal: Seal, name: str, secret: str) -> str:
    """The name of the host. Raises Unauthorized for an unknown host or a wrong secret."""
    if not hmac.compare_digest(_hash_of(session, seal, name) or "", _hash(secret)):
        raise errors.Unauthorized("This host is not known here, or its secret is wrong.")
    return name


def proof(secret: str, words: str) -> str:
    """What shows that somebody has the secret and says just these words, and gives neither away the secret nor
    anything for other words."""
    return _proof(_hash(secret), words)


def has_proven(session: Session, seal: Seal, name: str, words: str, given: str) -> bool:
    """Whether the proof for these words was made with the secret of the host."""
    secret_hash = _hash_of(session, seal, name)
    return secret_hash is not None and hmac.compare_digest(_proof(secret_hash, words).encode(), given.encode())


def known(session: Session, name: str) -> bool:
    """Whether the host was added."""
    return session.get(HostCredential, name) is not None


def remove(session: Session, name: str) -> None:
    """The host may no longer come."""
    session.execute(delete(HostCredential).where(HostCredential.host == name))


def may_read(session: Session, host: str, image_id: str) -> bool:
    """Whether a server of the host, or one that it has something to do for, stands on the image."""
    busy = select(Operation.server_id).where(Operation.host == host, Operation.state.in_(("queued", "running")))
    query = select(Server.image_id, Server.aside).where(
        or_(Server.host == host, Server.id.in_(busy)), Server.deleted.is_(False)
    )
    return any(image_id == own or image_id in aside.images(other) for own, other in session.execute(query))


def making(session: Session, host: str, image_id: str) -> Operation:
    """What the host makes an image by just now. Raises Forbidden when it makes no such image."""
    for operation in operations.running(session, host):
        if operation.arguments.get("image_id") == image_id:
            return operation
    raise errors.Forbidden("This host makes no such image.")


def _hash_of(session: Session, seal: Seal, name: str) -> str | None:
    found = session.get(HostCredential, name)
    if found is None:
        return None
    try:
        return seal.open(found.sealed_hash)
    except InvalidToken:
        log.error("The credential of host %s was sealed with other keys than those in keys/credential", name)
        return None


def _proof(secret_hash: str, words: str) -> str:
    return hmac.new(secret_hash.encode(), words.encode(), hashlib.sha256).hexdigest()


def _hash(secret: str) -> str:
    # Random and 256 bits long: nothing that a slow hash would make safer.
    return hashlib.sha256(secret.encode()).hexdigest()
