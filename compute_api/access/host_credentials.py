"""Host credentials: a secret per remote host, created by `sixstack host add`.

The database holds its SHA-256, which is the key of the host's proofs and therefore sealed: rows of the database, or a
backup of it, are useless without `state/keys`.
"""

import hmac
import logging
import re
import secrets
from datetime import datetime

from cryptography.fernet import InvalidToken
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.core import errors
from app.security.secret_cipher import SecretCipher
from compute_api.access.host_proof import hash_secret, prove_with_hash
from compute_api.models import HostCredential

log = logging.getLogger(__name__)

PLAIN = re.compile("[0-9a-f]{64}")


def create(session: Session, seal: SecretCipher, now: datetime, name: str) -> str:
    """Create a secret for the host; invalidates an older one."""
    secret = secrets.token_urlsafe(32)
    remove(session, name)
    session.add(HostCredential(host=name, sealed_hash=seal.encrypt(hash_secret(secret), now), created_at=now))
    return secret


def seal_plain_hashes(session: Session, seal: SecretCipher, now: datetime) -> None:
    """Seal hashes that earlier versions stored in plain. Idempotent."""
    for credential in session.scalars(select(HostCredential)):
        if PLAIN.fullmatch(credential.sealed_hash):
            credential.sealed_hash = seal.encrypt(credential.sealed_hash, now)


def authenticate(session: Session, seal: SecretCipher, name: str, secret: str) -> str:
    """Return the host's name. Raises Unauthorized for an unknown host or a wrong secret."""
    if not hmac.compare_digest(_hash_of(session, seal, name) or "", hash_secret(secret)):
        raise errors.Unauthorized("The host is unknown, or its secret is wrong.")
    return name


def is_valid_proof(session: Session, seal: SecretCipher, name: str, message: str, proof: str) -> bool:
    """Return whether the proof of the message was made with the host's secret."""
    secret_hash = _hash_of(session, seal, name)
    return secret_hash is not None and hmac.compare_digest(
        prove_with_hash(secret_hash, message).encode(), proof.encode()
    )


def is_registered(session: Session, name: str) -> bool:
    """Return whether the host has a credential."""
    return session.get(HostCredential, name) is not None


def remove(session: Session, name: str) -> None:
    """Delete the host's credential. Idempotent."""
    session.execute(delete(HostCredential).where(HostCredential.host == name))


def _hash_of(session: Session, seal: SecretCipher, name: str) -> str | None:
    found = session.get(HostCredential, name)
    if found is None:
        return None
    try:
        return seal.decrypt(found.sealed_hash)
    except InvalidToken:
        log.error("The credential of host %s was sealed with other keys than those in keys/credential", name)
        return None
