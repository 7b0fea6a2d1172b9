"""Tokens: issued, validated, revoked. They are encrypted and complete; the database keeps only those ended early."""

import hashlib
import os
import threading
from base64 import urlsafe_b64encode
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography.fernet import InvalidToken
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app import errors
from app.caller import Caller
from app.clock import Clock
from app.db import Database
from app.settings import Settings
from identity_api import effective, epoch, keys, subjects
from identity_api.effective import RoleGraph
from identity_api.models import RevokedToken
from identity_api.payload import Method, Payload, Scope
from identity_api.subjects import UNAUTHORIZED, Subject

REMEMBERED = 20_000
EXPIRED_WINDOW = timedelta(seconds=keys.EXPIRED_WINDOW_SECONDS)


@dataclass(frozen=True, slots=True)
class _Known:
    epoch: int
    until: datetime
    caller: Caller


class Tokens:
    """Everything about tokens. One for each API process; safe to use from many threads."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._clock = clock
        self._lifetime = timedelta(seconds=settings.token_seconds)
        self._keys = keys.Keys(keys.directory(settings))
        self._epoch = epoch.EpochReader(database)
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._graph: tuple[int, RoleGraph] | None = None

    def authenticate(self, token: str) -> Caller:
        """Who comes with this token. Raises Unauthorized unless it is good at this moment.

        What was found out once holds as long as the epoch stands still.
        """
        key = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        at = self._epoch.read()
        known = self._known.get(key)
        if known is not None and known.epoch == at:
            if self._clock.now() >= known.until:
                raise errors.Unauthorized(UNAUTHORIZED)
            return known.caller
        with self._database.reading() as session:
            subject = self._subject(session, self._opened(token), self._clock.now(), at)
        caller = subject.caller()
        until = subject.payload.expires_at
        if subject.credential_expires_at is not None:
            until = min(until, subject.credential_expires_at)
        with self._lock:
            self._known[key] = _Known(at, until, caller)
            self._known.move_to_end(key)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return caller

    def issue(
        self,
        session: Session,
        *,
        user_id: str,
        generation: int,
        methods: Method,
        scope: Scope,
        scope_id: str = "",
        parent: Payload | None = None,
        application_credential_id: str | None = None,
    ) -> tuple[str, Subject]:
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
        subject = subjects.resolve(session, self.graph(session), payload, now)
        return self._keys.encrypt(payload.pack(), int(now.timestamp())).rstrip(b"=").decode(), subject

    def validate(self, session: Session, token: str, *, allow_expired: bool = False) -> Subject:
        """What the token means now. Raises NotFound when it is none, or not valid any more."""
        try:
            payload = self._opened(token)
            now = self._clock.now()
            if allow_expired and payload.expires_at <= now < payload.expires_at + EXPIRED_WINDOW:
                # Its lifetime is over, which is forgiven; everything else must hold still.
                return replace(
                    self._subject(session, replace(payload, expires_at=now + EXPIRED_WINDOW), now), payload=payload
                )
            return self._subject(session, payload, now)
        except errors.Unauthorized:
            raise errors.NotFound(f"Could not find token: {_shown(token)}.") from None

    def revoke(self, session: Session, payload: Payload) -> None:
        """End this token for good, and forget the ends of tokens that are over anyway."""
        now = self._clock.now()
        session.execute(delete(RevokedToken).where(RevokedToken.expires_at < now - EXPIRED_WINDOW))
        if session.get(RevokedToken, payload.audit_id) is None:
            session.add(RevokedToken(audit_id=payload.audit_id, expires_at=payload.expires_at))
        epoch.bump(session)

    def graph(self, session: Session, at: int | None = None) -> RoleGraph:
        """All roles and what they imply."""
        at = self._epoch.read() if at is None else at
        held = self._graph
        if held is None or held[0] != at:
            held = self._graph = (at, effective.graph(session))
        return held[1]

    @property
    def epoch(self) -> int:
        """A number that moves when anything that was read from identity's tables may be old."""
        return self._epoch.read()

    def _opened(self, token: str) -> Payload:
        try:
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            return Payload.unpack(self._keys.decrypt(padded))
        except (InvalidToken, ValueError):
            raise errors.Unauthorized(UNAUTHORIZED) from None

    def _subject(self, session: Session, payload: Payload, now: datetime, at: int | None = None) -> Subject:
        if payload.expires_at <= now:
            raise errors.Unauthorized(UNAUTHORIZED)
        query = select(RevokedToken.audit_id).where(RevokedToken.audit_id == payload.audit_id)
        if session.scalar(query) is not None:
            raise errors.Unauthorized(UNAUTHORIZED)
        return subjects.resolve(session, self.graph(session, at), payload, now)


def _shown(token: str) -> str:
    """A token's digest, for messages that others may read."""
    return urlsafe_b64encode(hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()[:9]).decode()
