"""What a host on another computer shows the image API: a secret made when the host was added, kept as its hash."""

import hashlib
import hmac
import secrets
from datetime import datetime

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from app import errors
from compute_api import aside, operations
from compute_api.models import HostCredential, Operation, Server


def create(session: Session, now: datetime, name: str) -> str:
    """A new secret for the host; an older one is no longer good."""
    secret = secrets.token_urlsafe(32)
    remove(session, name)
    session.add(HostCredential(host=name, secret_hash=_hash(secret), created_at=now))
    return secret


def authenticate(session: Session, name: str, secret: str) -> str:
    """The name of the host. Raises Unauthorized when there is no such host or the secret is another."""
    found = session.get(HostCredential, name)
    if not hmac.compare_digest(found.secret_hash if found else "", _hash(secret)) or found is None:
        raise errors.Unauthorized("This host is not known here, or its secret is wrong.")
    return found.host


def proof(secret: str, words: str) -> str:
    """What shows that somebody has the secret and says just these words, and gives neither away the secret nor
    anything for other words."""
    return _proof(_hash(secret), words)


def has_proven(session: Session, name: str, words: str, given: str) -> bool:
    """Whether it is the host of that name that has made the proof."""
    found = session.get(HostCredential, name)
    return found is not None and hmac.compare_digest(_proof(found.secret_hash, words).encode(), given.encode())


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


def _proof(secret_hash: str, words: str) -> str:
    return hmac.new(secret_hash.encode(), words.encode(), hashlib.sha256).hexdigest()


def _hash(secret: str) -> str:
    # Random and 256 bits long: nothing that a slow hash would make safer.
    return hashlib.sha256(secret.encode()).hexdigest()
