"""Lockout: limits failed password attempts by user and source address.

Attempts are counted before the password is checked, so that parallel guesses stay within the limit. Counting by source
address prevents an attacker from locking out users at other addresses; IPv6 sources are /64 prefixes, because one
computer may use any address of its prefix. Attempts for unknown users are counted too, so that neither responses nor
timing disclose which users exist.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from sqlalchemy import case, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.core.clock import Clock
from app.core.settings import Settings
from app.db.database import Database
from identity_api.auth.methods import Reference
from identity_api.models import PasswordAttempts

MAX_ROWS = 50_000
"""Maximum number of counters; the oldest are evicted. Password checks are too slow to exploit the eviction."""


class Lockouts:
    """Attempt counters of all users, kept in the database. One instance per API process."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._clock = clock
        self._max_attempts = settings.lockout_attempts
        self._window = timedelta(seconds=settings.lockout_seconds)

    def attempt(self, subject: str, source: str, *, exempt: bool = False) -> "Attempt":
        """Return an uncounted attempt from a source address. `subject` is a user id or `unknown_user_subject(…)`."""
        if exempt or not self._max_attempts:
            return Attempt(lambda: True, lambda: None)
        source = source_network(source)

        def count() -> bool:
            with self._database.transaction() as session:
                return _count_attempt(session, self._clock.now(), subject, source, self._max_attempts, self._window)

        def clear() -> None:
            with self._database.transaction() as session:
                session.execute(delete(PasswordAttempts).where(*_counter_key(subject, source)))

        return Attempt(count, clear)


class Attempt:
    """One password attempt."""

    def __init__(self, count: Callable[[], bool], clear: Callable[[], None]) -> None:
        self._count = count
        self._clear = clear
        self.counted: bool | None = None
        """None: not counted, because the result was cached or shared with a concurrent request."""

    def count(self) -> bool:
        """Count the attempt. False if the user is locked out at this source: the password must not be checked."""
        self.counted = self._count()
        return self.counted

    def clear(self) -> None:
        """Reset the counter after a successful check."""
        if self.counted:
            self._clear()


def unknown_user_subject(user: Reference) -> str:
    """Counter key for a reference that matches no user; never equals a user id."""
    key = "\0".join((user.id or "", user.name or "", user.domain_id or "", user.domain_name or ""))
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def clear_lockouts(session: Session, user_id: str) -> None:
    """Delete the counters of a user after a password change."""
    session.execute(delete(PasswordAttempts).where(PasswordAttempts.subject == user_id))


@lru_cache(maxsize=1024)
def source_network(address: str) -> str:
    """Network by which an address is counted: the IPv4 address itself, the /64 of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(ip_network((int(parsed), 64), strict=False))


def _count_attempt(
    session: Session, now: datetime, subject: str, source: str, max_attempts: int, window: timedelta
) -> bool:
    insert: Any = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    is_over = PasswordAttempts.attempted_at <= now - window
    counted = session.scalar(
        insert(PasswordAttempts)
        .values(subject=subject, source=source, attempts=1, attempted_at=now)
        .on_conflict_do_update(
            index_elements=[PasswordAttempts.subject, PasswordAttempts.source],
            set_={"attempts": case((is_over, 1), else_=PasswordAttempts.attempts + 1), "attempted_at": now},
            where=or_(PasswordAttempts.attempts < max_attempts, is_over),
        )
        .returning(PasswordAttempts.attempts)
    )
    if counted == 1:
        _prune(session, now - window)
    return counted is not None


def _prune(session: Session, horizon: datetime) -> None:
    """Delete expired counters, and the oldest beyond `MAX_ROWS`."""
    newest = select(PasswordAttempts.attempted_at).order_by(PasswordAttempts.attempted_at.desc())
    surplus = newest.offset(MAX_ROWS).limit(1).scalar_subquery()
    session.execute(
        delete(PasswordAttempts)
        .where(or_(PasswordAttempts.attempted_at <= horizon, PasswordAttempts.attempted_at <= surplus))
        .execution_options(synchronize_session=False)
    )


def _counter_key(subject: str, source: str) -> tuple[Any, Any]:
    return PasswordAttempts.subject == subject, PasswordAttempts.source == source
