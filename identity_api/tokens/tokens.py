"""Tokens: issued, validated, revoked. They are encrypted and complete; the database keeps only those ended early."""

import hashlib
import os
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography.fernet import InvalidToken
from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from app.core.clock import Clock
from app.core.settings import Settings
from app.db.database import Database
from app.security import keys
from identity_api import epoch
from identity_api.assignments import effective
from identity_api.assignments.effective import RoleGraph
from identity_api.epoch import EpochReader
from identity_api.epoch_cache import EpochCache
from identity_api.models import RevokedToken
from identity_api.tokens import context
from identity_api.tokens.context import UNAUTHORIZED, AuthContext, TokenContext
from identity_api.tokens.payload import Method, Payload, Scope

CACHE_SIZE = 20_000
REVOKED = select(RevokedToken.audit_id).where(RevokedToken.audit_id == bindparam("audit_id"))
EXPIRED_WINDOW = timedelta(seconds=keys.EXPIRED_WINDOW_SECONDS)


_ContextKey = tuple[str, Scope, str, str | None]
"""User, scope, and application credential."""


@dataclass(frozen=True, slots=True)
class _CachedToken:
    epoch: int
    until: datetime
    subject: TokenContext
    caller: Caller


class Tokens:
    """Everything about tokens. One for each API process; safe to use from many threads."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._clock = clock
        self._lifetime = timedelta(seconds=settings.token_seconds)
        self._keys = keys.KeyRing(keys.directory(settings))
        self._epoch = EpochReader(database)
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, _CachedToken] = OrderedDict()
        self._graphs: EpochCache[None, RoleGraph] = EpochCache()
        self._standings: EpochCache[_ContextKey, AuthContext] = EpochCache()

    @property
    def epoch(self) -> int:
        """A number that moves when anything that was read from identity's tables may be old."""
        return self._epoch.read()

    def authenticate(self, token: str) -> Caller:
        """Who comes with this token. Raises Unauthorized unless it is good at this moment.

        What was found out once holds as long as the epoch stands still.
        """
        return self._look_at(token).caller

    def issue(
        self,
        *,
        user_id: str,
        generation: int,
        methods: Method,
        scope: Scope,
        scope_id: str = "",
        parent: Payload | None = None,
        application_credential_id: str | None = None,
    ) -> tuple[str, TokenContext]:
        """A new token. Raises Unauthorized when the user may do nothing in this scope.

        With a parent, it ends when the parent ends and belongs to the parent's chain.
        """
        now = self._clock.now()
        payload = Payload(
            user_id=user_id,
            methods=methods,
            scope=scope,
            scope_id=scope_id,
            issued_at=now,
            expires_at=parent.expires_at if parent else now + self._lifetime,
            audit_id=os.urandom(16),
            parent_audit_id=(parent.parent_audit_id or parent.audit_id) if parent else None,
            generation=generation,
            application_credential_id=application_credential_id,
        )
        subject = TokenContext(payload, self._standing(payload, now, self._epoch.read()))
        return self._keys.encrypt(payload.pack(), int(now.timestamp())).rstrip(b"=").decode(), subject

    def validate(self, token: str, *, allow_expired: bool = False) -> TokenContext:
        """What the token means now. Raises NotFound when it is none, or not valid any more.

        `allow_expired` forgives that its lifetime is over, for a while; everything else must hold still.
        """
        now = self._clock.now()
        try:
            payload = self._opened(token) if allow_expired else None
            if payload is not None and payload.expires_at <= now < payload.expires_at + EXPIRED_WINDOW:
                subject = self._subject(replace(payload, expires_at=now + EXPIRED_WINDOW), now, self._epoch.read())
                return replace(subject, payload=payload)
            return self._look_at(token).subject
        except errors.Unauthorized:
            raise errors.NotFound(f"Could not find token: {_fingerprint(token)}.") from None

    def revoke(self, session: Session, payload: Payload) -> None:
        """End this token for good, and forget the ends of tokens that are over anyway."""
        now = self._clock.now()
        session.execute(delete(RevokedToken).where(RevokedToken.expires_at < now - EXPIRED_WINDOW))
        if session.get(RevokedToken, payload.audit_id) is None:
            session.add(RevokedToken(audit_id=payload.audit_id, expires_at=payload.expires_at))
        epoch.bump(session)

    def _look_at(self, token: str) -> _CachedToken:
        """What is known of a token. Raises Unauthorized unless it is good at this moment."""
        key = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        at = self._epoch.read()
        known = self._known.get(key)
        if known is None or known.epoch != at:
            subject = self._subject(self._opened(token), self._clock.now(), at)
            known = _CachedToken(at, subject.ends_at, subject, subject.caller())
            with self._lock:
                self._known[key] = known
                self._known.move_to_end(key)
                while len(self._known) > CACHE_SIZE:
                    self._known.popitem(last=False)
        elif self._clock.now() >= known.until:
            raise errors.Unauthorized(UNAUTHORIZED)
        return known

    def _opened(self, token: str) -> Payload:
        try:
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            if urlsafe_b64encode(urlsafe_b64decode(padded)) != padded:
                raise ValueError("a token has one spelling only, and this is another")
            return Payload.unpack(self._keys.decrypt(padded))
        except (InvalidToken, ValueError):
            raise errors.Unauthorized(UNAUTHORIZED) from None

    def _subject(self, payload: Payload, now: datetime, at: int) -> TokenContext:
        if payload.expires_at <= now:
            raise errors.Unauthorized(UNAUTHORIZED)
        with self._database.reading() as session:
            if session.scalar(REVOKED, {"audit_id": payload.audit_id}) is not None:
                raise errors.Unauthorized(UNAUTHORIZED)
        return TokenContext(payload, self._standing(payload, now, at))

    def _standing(self, payload: Payload, now: datetime, at: int) -> AuthContext:
        """What the user is in the token's scope. Raises Unauthorized for one of a generation that has ended."""
        place = (payload.user_id, payload.scope, payload.scope_id, payload.application_credential_id)

        def read() -> AuthContext:
            with self._database.reading() as session:
                graph = self._graphs.get(at, None, lambda: effective.load_role_graph(session))
                return context.load_auth_context(session, graph, *place)

        standing = self._standings.get(at, place, read)
        if standing.generation != payload.generation or not standing.holds(now):
            raise errors.Unauthorized(UNAUTHORIZED)
        return standing


def is_current(session: Session, now: datetime, grant: bytes) -> bool:
    """Whether a token with these contents (`Caller.grant`) is valid at this moment; reads the tables each time."""
    try:
        payload = Payload.unpack(grant)
    except ValueError:
        return False
    if payload.expires_at <= now or session.scalar(REVOKED, {"audit_id": payload.audit_id}) is not None:
        return False
    place = (payload.user_id, payload.scope, payload.scope_id, payload.application_credential_id)
    try:
        standing = context.load_auth_context(session, effective.load_role_graph(session), *place)
    except errors.Unauthorized:
        return False
    return standing.generation == payload.generation and standing.holds(now)


def _fingerprint(token: str) -> str:
    """A token's digest, for messages that others may read."""
    return urlsafe_b64encode(hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()[:9]).decode()
