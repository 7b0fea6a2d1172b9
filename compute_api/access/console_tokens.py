"""Tokens of consoles: valid for ten minutes and five connections, kept as hashes.

A token ends with its server, when the server moves, and with the identity token that asked for it: when that is revoked
or expires, or its user is disabled or loses the last role there.
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
"""Connections that a token opens: noVNC connects again when a connection breaks."""


class ConsoleType(StrEnum):
    """The types of Nova's consoles that there are here."""

    NOVNC = "novnc"
    SERIAL = "serial"


def check_available(session: Session, server: Server, here: str | None, *, others: bool) -> None:
    """Raise Conflict unless the server may have a console now, BadRequest when it is on a host whose consoles are not
    served: neither the one `here` nor, with `others`, one that was added."""
    if server.host is None or server.power_state not in (PowerState.RUNNING, PowerState.PAUSED):
        raise errors.Conflict(f"Instance {server.id} is not ready")
    if server.host != here and not (others and host_credentials.is_registered(session, server.host)):
        raise errors.BadRequest("Unavailable console type: this server is on a host whose consoles are not served.")


def issue(session: Session, now: datetime, server: Server, kind: ConsoleType, caller: Caller) -> str:
    """A new token for a console of a server that `check` has passed. Deletes expired ones."""
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
    """The valid token, not used by this. Raises NotFound when it is unknown, used up or over, see above."""
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
    """Use the token for one connection. Raises NotFound like `find`."""
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
