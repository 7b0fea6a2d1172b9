"""Console tokens: valid for ten minutes and five connections, stored as hashes.

A token becomes invalid when its server is deleted or moves, and with the identity token that requested it: when that is
revoked or expires, or its user is disabled or loses the last role on the project.
"""

import hashlib
import secrets
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from compute_api.access import host_credentials
from compute_api.models import ConsoleToken, Server
from compute_api.states import PowerState
from identity_api.tokens import tokens

LIFETIME = timedelta(minutes=10)
USES = 5
"""Connections per token: noVNC reconnects when a connection breaks."""


class ConsoleType(StrEnum):
    """Nova console types that are supported."""

    NOVNC = "novnc"
    SERIAL = "serial"


def check_available(session: Session, server: Server, here: str | None, *, others: bool) -> None:
    """Raise Conflict unless the server can have a console now, BadRequest when its host's consoles are not served.

    Served are the host `here` and, with `others`, registered remote hosts.
    """
    if server.host is None or server.power_state not in (PowerState.RUNNING, PowerState.PAUSED):
        raise errors.Conflict(f"Instance {server.id} is not ready")
    if server.host != here and not (others and host_credentials.is_registered(session, server.host)):
        raise errors.BadRequest("Unavailable console type: this server is on a host whose consoles are not served.")


def issue(session: Session, now: datetime, server: Server, kind: ConsoleType, caller: Caller) -> str:
    """Return a new token for a console of a server that `check_available` has passed. Deletes expired tokens."""
    session.execute(delete(ConsoleToken).where(ConsoleToken.expires_at <= now))
    token = secrets.token_urlsafe(32)
    expires_at = now + LIFETIME
    session.add(
        ConsoleToken(
            token_hash=_hash(token),
            server_id=server.id,
            host=server.host,
            console_type=kind,
            issuer=caller.grant,
            uses_left=USES,
            expires_at=min(expires_at, caller.expires_at or expires_at),
        )
    )
    return token


def find(session: Session, now: datetime, token: str) -> ConsoleToken:
    """Return a valid token without using it. Raises NotFound when it is unknown, used up or invalid."""
    query = (
        select(ConsoleToken)
        .join(Server, Server.id == ConsoleToken.server_id)
        .where(ConsoleToken.token_hash == _hash(token), ConsoleToken.expires_at > now, ConsoleToken.uses_left > 0)
        .where(Server.deleted.is_(False), Server.host == ConsoleToken.host)
    )
    found = session.scalar(query)
    if found is None or not tokens.is_current(session, now, found.issuer):
        raise errors.NotFound("Token not found")
    return found


def use(session: Session, now: datetime, token: str) -> ConsoleToken:
    """Use the token for one connection. Raises NotFound."""
    found = find(session, now, token)
    used = session.scalar(
        update(ConsoleToken)
        .where(ConsoleToken.token_hash == found.token_hash, ConsoleToken.uses_left > 0)
        .values(uses_left=ConsoleToken.uses_left - 1)
        .returning(ConsoleToken.uses_left)
        .execution_options(synchronize_session=False)
    )
    if used is None:
        raise errors.NotFound("Token not found")
    return found


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
