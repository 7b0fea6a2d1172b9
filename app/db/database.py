"""Database access: engines, sessions and transactions on SQLite and PostgreSQL.

SQLite has one writer at a time. A transaction that reads first and writes later cannot wait for another writer, so
every write transaction is BEGIN IMMEDIATE, behind a lock: a mutex within the process and flock between processes.
"""

import fcntl
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import (
    JSON,
    URL,
    DateTime,
    Dialect,
    Engine,
    MetaData,
    TypeDecorator,
    create_engine,
    event,
    exc,
    make_url,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from app.core import patterns
from app.core.errors import BadRequest, OperatorError
from app.db.prepared_reads import ConnectionOwner, PreparedReads
from app.security.owned_files import open_or_create

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

Json = JSON().with_variant(JSONB(), "postgresql")
"""A JSON column. Assign a new value to change it; in-place mutations are not tracked."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC, for databases with and without time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value.astimezone(UTC)  # PostgreSQL returns times in the session's time zone


class Base(DeclarativeBase):
    """Declarative base of all services' models; they share one metadata and one migration history."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: Json, list[str]: Json, dict[str, str]: Json}


LIBPQ_TIMEOUTS = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""Connection parameters of libpq in seconds, unless the URL sets them: detects dead servers early."""
WAIT_SECONDS = 20
"""Timeout for a connection from an exhausted pool."""
RECYCLE_SECONDS = 1800
"""Maximum age of a pooled connection, so that connections spread over servers behind one name."""
PATTERN_TIMEOUT_MS = 3000
"""Statement timeout of PostgreSQL queries with regular expressions of users."""
ADVICE = "For PostgreSQL use postgresql+psycopg://USER@HOST/NAME."
_SQL_IS_WRONG = 1  # SQLITE_ERROR
_NO_SUCH_TABLE = "42P01"
_QUERY_CANCELED = "57014"
_READ_ONLY = "25006"  # from a former primary that is now a standby


def is_unreachable(error: Exception) -> bool:
    """Whether the database is unreachable or busy, so that a retry may succeed.

    Accepts errors of SQLAlchemy and of the drivers.
    """
    if isinstance(error, exc.TimeoutError):
        return True
    if isinstance(error, exc.DBAPIError):
        if error.connection_invalidated:
            return True
        error = error.orig if isinstance(error.orig, Exception) else error
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode != _SQL_IS_WRONG
    names = {kind.__name__ for kind in type(error).__mro__}
    outside = type(error).__module__.startswith("psycopg")
    return outside and (bool(names & {"OperationalError", "InterfaceError"}) or _state(error) == _READ_ONLY)


def is_empty(error: Exception) -> bool:
    """Whether the error means that the database lacks Sixstack's tables, as when another one is configured."""
    return isinstance(error, exc.DBAPIError) and (
        str(error.orig).startswith("no such table") or _state(error.orig) == _NO_SUCH_TABLE
    )


def error_reason(error: Exception) -> str:
    """Return the first line of the driver's error message."""
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig else error
    return str(cause).strip().partition("\n")[0]


def _parse_url(url: str) -> URL:
    """Parse the URL; psycopg is the driver of PostgreSQL URLs that name none. Raises OperatorError."""
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise OperatorError(f"{url!r} is not a database URL. {ADVICE}") from None
    plain = parsed.drivername in ("postgresql", "postgres")
    return parsed.set(drivername="postgresql+psycopg") if plain else parsed


def _state(error: BaseException | None) -> str | None:
    return getattr(error, "sqlstate", None)


class Database:
    """Engines for writes (`transaction`) and reads (`reading`) of one database."""

    def __init__(self, url: str, *, synchronous: str = "NORMAL", pool_size: int = 10, connections: int = 16) -> None:
        """Create the engines; connections are opened on demand.

        `pool_size` applies to SQLite: one connection per thread. `connections` is the maximum on PostgreSQL, half of
        them for reads. Raises OperatorError for an unsupported URL.
        """
        parsed = _parse_url(url)
        self.url = url
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        common: dict[str, Any] = {"json_serializer": _json, "json_deserializer": orjson.loads}
        if self.is_sqlite:
            common["connect_args"] = {"check_same_thread": False, "isolation_level": None, "timeout": 30}
            common |= {"pool_size": pool_size, "max_overflow": pool_size}
        else:
            common["connect_args"] = {name: value for name, value in LIBPQ_TIMEOUTS.items() if name not in parsed.query}
            common |= {"pool_size": max(connections // 2, 1), "max_overflow": 0, "pool_timeout": WAIT_SECONDS}
            common |= {"pool_pre_ping": True, "pool_use_lifo": True, "pool_recycle": RECYCLE_SECONDS}
        try:
            self.writer: Engine = create_engine(parsed, **common)
            self.reader: Engine = create_engine(parsed, isolation_level="AUTOCOMMIT", **common)
        except (exc.ArgumentError, ModuleNotFoundError) as error:
            raise OperatorError(f"the database {parsed} cannot be used: {error}. {ADVICE}") from None
        self._pinned: list[tuple[weakref.ref[ConnectionOwner], PoolProxiedConnection]] = []
        self._pinned_lock = threading.Lock()
        self.prepared_reads = PreparedReads(self)
        self._write_lock = _WriteLock(Path(parsed.database)) if self.is_sqlite and parsed.database else None
        if self.is_sqlite:
            for engine in (self.writer, self.reader):
                event.listen(engine, "connect", _pragma_setter(synchronous))
            event.listen(self.writer, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a write transaction: commits at the end, rolls back on an exception. Keep it short: no network, no qemu.

        Callbacks registered with `after_commit` run after the commit.
        """
        with Session(self.writer, expire_on_commit=False) as session:
            if self._write_lock:
                with self._write_lock, session.begin():
                    yield session
            else:
                with session.begin():
                    yield session
        for action in session.info.pop("after_commit", []):
            action()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session for reads, in autocommit: each statement sees the latest commits. Never write through it."""
        with Session(self.reader, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def reading_with_patterns(self) -> Iterator[Session]:
        """`reading` for queries with regular expressions of users.

        SQLite calls RE2, which is linear. PostgreSQL's own engine gets a statement timeout. Raises BadRequest when it
        is exceeded.
        """
        with self.reading() as session:
            if self.is_sqlite:
                yield session
                return
            connection = session.connection()
            connection.exec_driver_sql(f"SET statement_timeout = {PATTERN_TIMEOUT_MS}")
            try:
                yield session
            except exc.DBAPIError as error:
                if _state(error.orig) != _QUERY_CANCELED:
                    raise
                raise BadRequest("The regular expression takes too long to match. Use a simpler one.") from None
            finally:
                if not connection.invalidated:
                    connection.exec_driver_sql("RESET statement_timeout")

    def pin_connection(self, owner: ConnectionOwner) -> PoolProxiedConnection:
        """Take a read connection out of the pool for prepared queries, for as long as `owner` is alive.

        `owner` is an object in thread-local storage: it is collected when its thread ends, and the next call of this
        method returns the connection to the pool. Code cannot run at the end of the thread itself.
        """
        with self._pinned_lock:
            orphaned = [connection for reference, connection in self._pinned if reference() is None]
            self._pinned = [
                (reference, connection) for reference, connection in self._pinned if reference() is not None
            ]
            for connection in orphaned:
                connection.close()
            connection = self.reader.raw_connection()
            self._pinned.append((weakref.ref(owner), connection))
        return connection

    def discard_connection(self, owner: ConnectionOwner) -> None:
        """Close the broken connection of this owner."""
        with self._pinned_lock:
            broken = [connection for reference, connection in self._pinned if reference() is owner]
            self._pinned = [
                (reference, connection) for reference, connection in self._pinned if reference() is not owner
            ]
        for connection in broken:
            connection.invalidate()

    def dispose(self) -> None:
        """Close all connections, pinned ones included."""
        while self._pinned:
            self._pinned.pop()[1].invalidate()
        self.writer.dispose()
        self.reader.dispose()
        if self._write_lock:
            self._write_lock.close()


def after_commit(session: Session, action: Callable[[], None]) -> None:
    """Run the action after the commit of this session's transaction; a rollback discards it."""
    session.info.setdefault("after_commit", []).append(action)


class _WriteLock:
    """Write lock between threads and processes. Raises RuntimeError instead of deadlocking on re-entry."""

    def __init__(self, database: Path) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._path = database.with_name(database.name + ".lock")
        self._file = os.fdopen(open_or_create(self._path), "r+")

    def __enter__(self) -> None:
        if self._owner == threading.get_ident():
            raise RuntimeError("nested write transaction")
        self._lock.acquire()
        self._owner = threading.get_ident()
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *exc: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._owner = None
        self._lock.release()

    def close(self) -> None:
        self._file.close()


def _pragma_setter(synchronous: str) -> Callable[[Any, ConnectionPoolEntry], None]:
    def set_pragmas(connection: Any, _record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            "busy_timeout=30000",
            "cache_size=-2048",
            "temp_store=MEMORY",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        connection.create_function("regexp", 2, patterns.matches, deterministic=True)

    return set_pragmas


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(value).decode()
