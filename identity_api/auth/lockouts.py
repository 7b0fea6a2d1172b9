"""Lockout: limits wrong passwords by user and source address. An attempt is counted before the password is checked.

Counting first keeps parallel guesses within the limit. Counting by source address keeps a guesser from locking out
users at other addresses; the sources of IPv6 are /64 prefixes, because one computer may use every address of its own.
Names of users that do not exist are counted alike, so that neither answers nor timing tell who exists.
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
"""Rows that are kept at most; the oldest are evicted. Passwords cannot be guessed fast enough to make use of that."""


class Lockouts:
    """Counts the attempts of all users. One for each API process; the counters are in the database."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._clock = clock
        self._most = settings.lockout_attempts
        self._window = timedelta(seconds=settings.lockout_seconds)

    def attempt(self, subject: str, source: str, *, exempt: bool = False) -> "Attempt":
        """An attempt of a user (see `subject_of_unknown` for others) from a source address, not counted yet."""
        if exempt or not self._most:
            return Attempt(lambda: True, lambda: None)
        source = source_network(source)

        def take() -> bool:
            with self._database.transaction() as session:
                return _count_attempt(session, self._clock.now(), subject, source, self._most, self._window)

        def clear() -> None:
            with self._database.transaction() as session:
                session.execute(delete(PasswordAttempts).where(*_counter_key(subject, source)))

        return Attempt(take, clear)


class Attempt:
    """One attempt to log in with a password."""

    def __init__(self, take: Callable[[], bool], clear: Callable[[], None]) -> None:
        self._take = take
        self._clear = clear
        self.taken: bool | None = None
        """None: not counted, because the password was remembered or is checked for another request."""

    def take(self) -> bool:
        """Count it. False when the user is locked out at this source; then the password must not be looked at."""
        self.taken = self._take()
        return self.taken

    def clear(self) -> None:
        """Reset the counter after a right password."""
        if self.taken:
            self._clear()


def unknown_user_subject(user: Reference) -> str:
    """What attempts with a reference to no user are counted by; never the id of a user."""
    words = "\0".join((user.id or "", user.name or "", user.domain_id or "", user.domain_name or ""))
    return hashlib.sha256(words.encode(errors="surrogateescape")).hexdigest()


def clear_lockouts(session: Session, user_id: str) -> None:
    """End all lockouts of the user, who has a new password."""
    session.execute(delete(PasswordAttempts).where(PasswordAttempts.subject == user_id))


@lru_cache(maxsize=1024)
def source_network(address: str) -> str:
    """The network that an address is counted by: an IPv4 address alone, the /64 of an IPv6 address."""
    try:
        found = ip_address(address)
    except ValueError:
        return ""
    if not isinstance(found, IPv6Address):
        return str(found)
    return str(ip_network((int(found), 64), strict=False))


def _count_attempt(session: Session, now: datetime, subject: str, source: str, most: int, window: timedelta) -> bool:
    insert: Any = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    is_over = PasswordAttempts.attempted_at <= now - window
    counted = session.scalar(
        insert(PasswordAttempts)
        .values(subject=subject, source=source, attempts=1, attempted_at=now)
        .on_conflict_do_update(
            index_elements=[PasswordAttempts.subject, PasswordAttempts.source],
            set_={"attempts": case((is_over, 1), else_=PasswordAttempts.attempts + 1), "attempted_at": now},
            where=or_(PasswordAttempts.attempts < most, is_over),
        )
        .returning(PasswordAttempts.attempts)
    )
    if counted == 1:
        _prune(session, now - window)
    return counted is not None


def _prune(session: Session, horizon: datetime) -> None:
    """Delete counters that are over, and the oldest of too many."""
    newest = select(PasswordAttempts.attempted_at).order_by(PasswordAttempts.attempted_at.desc())
    surplus = newest.offset(MAX_ROWS).limit(1).scalar_subquery()
    session.execute(
        delete(PasswordAttempts)
        .where(or_(PasswordAttempts.attempted_at <= horizon, PasswordAttempts.attempted_at <= surplus))
        .execution_options(synchronize_session=False)
    )


def _counter_key(subject: str, source: str) -> tuple[Any, Any]:
    return PasswordAttempts.subject == subject, PasswordAttempts.source == source
