"""Who may look at a console: tokens that live ten minutes, are kept as hashes, and die with the server or its host."""

import hashlib
import secrets
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app import errors
from compute_api import host_credentials
from compute_api.models import ConsoleToken, Server
from compute_api.states import PowerState

LIFETIME = timedelta(minutes=10)


class ConsoleType(StrEnum):
    """The types of Nova's consoles that there are here."""

    NOVNC = "novnc"
    SERIAL = "serial"


def check(session: Session, server: Server, here: str | None, *, others: bool) -> None:
    """Raise Conflict unless the server may have a console now, BadRequest when it is on a host whose consoles are not
    served: neither the one `here` nor, with `others`, one that was added."""
    if server.host is None or server.power_state not in (PowerState.RUNNING, PowerState.PAUSED):
        raise errors.Conflict(f"Instance {server.id} is not ready")
    if server.host != here and not (others and host_credentials.known(session, server.host)):
        raise errors.BadRequest("Unavailable console type: this server is on a host whose consoles are not served.")


def issue(session: Session, now: datetime, server: Server, kind: ConsoleType) -> str:
    """A new token for a console of a server that `check` has passed. Those that have expired go."""
    session.execute(delete(ConsoleToken).where(ConsoleToken.expires_at <= now))
    token = secrets.token_urlsafe(32)
    session.add(
        ConsoleToken(
            token_hash=_hash(token),
            server_id=server.id,
            host=server.host,
            console_type=kind,
            expires_at=now + LIFETIME,
        )
    )
    return token


def find(session: Session, now: datetime, token: str) -> ConsoleToken:
    """What a token is good for. Raises NotFound when it has expired, never was, or its server has gone or moved."""
    query = (
        select(ConsoleToken)
        .join(Server, Server.id == ConsoleToken.server_id)
        .where(ConsoleToken.token_hash == _hash(token), ConsoleToken.expires_at > now)
        .where(Server.deleted.is_(False), Server.host == ConsoleToken.host)
    )
    found = session.scalar(query)
    if found is None:
        raise errors.NotFound("Token not found")
    return found


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
