"""Tokens: issue, validate, revoke. Tokens are encrypted and self-contained; the database stores only revocations."""

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
"""User id, scope, scope id, application credential id."""


@dataclass(frozen=True, slots=True)
class _CachedToken:
    epoch: int
    until: datetime
    subject: TokenContext
    caller: Caller


class Tokens:
    """Issues, validates and revokes tokens. One instance per API process; thread-safe."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._clock = clock
        self._lifetime = timedelta(seconds=settings.token_seconds)
        self._keys = keys.KeyRing(keys.directory(settings))
        self._epoch = EpochReader(database)
        self._lock = threading.Lock()
        self._cache: OrderedDict[bytes, _CachedToken] = OrderedDict()
        self._role_graphs: EpochCache[None, RoleGraph] = EpochCache()
        self._auth_contexts: EpochCache[_ContextKey, AuthContext] = EpochCache()

    @property
    def epoch(self) -> int:
        """Current identity epoch."""
        return self._epoch.read()

    def authenticate(self, token: str) -> Caller:
        """Return the caller of a valid token. Raises Unauthorized.

        Results are cached until the epoch changes.
        """
        return self._lookup(token).caller

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
        """Issue a token. Raises Unauthorized if the user has no role in this scope.

        A token issued by another token (`parent`) keeps its expiry and audit chain.
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
        subject = TokenContext(payload, self._load_auth_context(payload, now, self._epoch.read()))
        return self._keys.encrypt(payload.pack(), int(now.timestamp())).rstrip(b"=").decode(), subject

    def validate(self, token: str, *, allow_expired: bool = False) -> TokenContext:
        """Return the context of the token. Raises NotFound for an invalid token.

        `allow_expired` accepts tokens that expired less than `EXPIRED_WINDOW` ago and are valid otherwise.
        """
        now = self._clock.now()
        try:
            payload = self._decrypt(token) if allow_expired else None
            if payload is not None and payload.expires_at <= now < payload.expires_at + EXPIRED_WINDOW:
                subject = self._load_context(replace(payload, expires_at=now + EXPIRED_WINDOW), now, self._epoch.read())
                return replace(subject, payload=payload)
            return self._lookup(token).subject
        except errors.Unauthorized:
            raise errors.NotFound(f"Could not find token: {_fingerprint(token)}.") from None

    def revoke(self, session: Session, payload: Payload) -> None:
        """Revoke the token, and delete revocations of expired tokens."""
        now = self._clock.now()
        session.execute(delete(RevokedToken).where(RevokedToken.expires_at < now - EXPIRED_WINDOW))
        if session.get(RevokedToken, payload.audit_id) is None:
            session.add(RevokedToken(audit_id=payload.audit_id, expires_at=payload.expires_at))
        epoch.bump(session)

    def _lookup(self, token: str) -> _CachedToken:
        """Return the cached or newly validated token. Raises Unauthorized if it is invalid."""
        key = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        at = self._epoch.read()
        cached = self._cache.get(key)
        if cached is None or cached.epoch != at:
            subject = self._load_context(self._decrypt(token), self._clock.now(), at)
            cached = _CachedToken(at, subject.valid_until, subject, subject.caller())
            with self._lock:
                self._cache[key] = cached
                self._cache.move_to_end(key)
                while len(self._cache) > CACHE_SIZE:
                    self._cache.popitem(last=False)
        elif self._clock.now() >= cached.until:
            raise errors.Unauthorized(UNAUTHORIZED)
        return cached

    def _decrypt(self, token: str) -> Payload:
        try:
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            if urlsafe_b64encode(urlsafe_b64decode(padded)) != padded:
                raise ValueError("not the canonical base64 encoding")
            return Payload.unpack(self._keys.decrypt(padded))
        except (InvalidToken, ValueError):
            raise errors.Unauthorized(UNAUTHORIZED) from None

    def _load_context(self, payload: Payload, now: datetime, at: int) -> TokenContext:
        if payload.expires_at <= now:
            raise errors.Unauthorized(UNAUTHORIZED)
        with self._database.reading() as session:
            if session.scalar(REVOKED, {"audit_id": payload.audit_id}) is not None:
                raise errors.Unauthorized(UNAUTHORIZED)
        return TokenContext(payload, self._load_auth_context(payload, now, at))

    def _load_auth_context(self, payload: Payload, now: datetime, at: int) -> AuthContext:
        """Return the context of the token's scope. Raises Unauthorized if the user's generation has changed."""
        key = (payload.user_id, payload.scope, payload.scope_id, payload.application_credential_id)

        def read() -> AuthContext:
            with self._database.reading() as session:
                graph = self._role_graphs.get(at, None, lambda: effective.load_role_graph(session))
                return context.load_auth_context(session, graph, *key)

        auth_context = self._auth_contexts.get(at, key, read)
        if auth_context.generation != payload.generation or not auth_context.is_valid_at(now):
            raise errors.Unauthorized(UNAUTHORIZED)
        return auth_context


def is_current(session: Session, now: datetime, grant: bytes) -> bool:
    """Whether the token with this payload (`Caller.grant`) is valid now; not cached."""
    try:
        payload = Payload.unpack(grant)
    except ValueError:
        return False
    if payload.expires_at <= now or session.scalar(REVOKED, {"audit_id": payload.audit_id}) is not None:
        return False
    key = (payload.user_id, payload.scope, payload.scope_id, payload.application_credential_id)
    try:
        auth_context = context.load_auth_context(session, effective.load_role_graph(session), *key)
    except errors.Unauthorized:
        return False
    return auth_context.generation == payload.generation and auth_context.is_valid_at(now)


def _fingerprint(token: str) -> str:
    """Truncated digest of a token, safe for error messages."""
    return urlsafe_b64encode(hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()[:9]).decode()
