"""Database: pooled and pinned connections, errors, times."""

import sqlite3
import threading
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pytest
from sqlalchemy import exc, text
from sqlalchemy.engine.default import DefaultDialect

from app.core.errors import OperatorError
from app.db.database import ConnectionOwner, Database, UtcDateTime, is_unreachable


def test_connections_of_ended_threads_return_to_the_pool(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/some.db", pool_size=1)
    keeping = threading.local()

    def hold() -> None:
        keeping.owner = ConnectionOwner()
        database.pin_connection(keeping.owner)

    for _ in range(5):
        thread = threading.Thread(target=hold)
        thread.start()
        thread.join()
    assert database.reader.pool.checkedout() == 1  # type: ignore[attr-defined]
    with database.reading() as session:
        assert session.scalar(text("SELECT 1")) == 1
    database.dispose()


def test_dispose_closes_pinned_connections(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/some.db", pool_size=1)
    owner = ConnectionOwner()
    held = database.pin_connection(owner)
    database.dispose()
    assert not held.is_valid


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (psycopg.errors.AdminShutdown(), True),
        (psycopg.errors.DeadlockDetected(), True),
        (psycopg.errors.ReadOnlySqlTransaction(), True),
        (psycopg.OperationalError("the connection is closed"), True),
        (psycopg.errors.TooManyConnections(), True),
        (psycopg.errors.UndefinedTable(), False),
        (psycopg.errors.UniqueViolation(), False),
        (exc.TimeoutError("QueuePool limit"), True),
        (exc.OperationalError("SELECT 1", {}, psycopg.errors.CannotConnectNow()), True),
        (exc.ProgrammingError("SELECT 1", {}, psycopg.errors.SyntaxError()), False),
        (ValueError("no"), False),
    ],
)
def test_retryable_errors_are_recognized(error: Exception, helps: bool) -> None:
    assert is_unreachable(error) is helps


def test_locked_sqlite_is_unreachable_and_invalid_sql_is_not(tmp_path: Path) -> None:
    with ExitStack() as undo:
        one, two = (undo.enter_context(closing(sqlite3.connect(tmp_path / "some.db", timeout=0))) for _ in range(2))
        with pytest.raises(sqlite3.OperationalError) as wrong:
            one.execute("SELECT * FROM nothing")
        assert not is_unreachable(exc.OperationalError("", {}, wrong.value))
        one.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as locked:
            two.execute("BEGIN IMMEDIATE")
        assert is_unreachable(exc.OperationalError("", {}, locked.value))


@pytest.mark.parametrize("url", ["nonsense", "oracle://somewhere/x", "nosuch://x"])
def test_unsupported_urls_are_rejected(url: str) -> None:
    with pytest.raises(OperatorError, match="postgresql"):
        Database(url)


def test_times_are_utc_for_any_postgresql_time_zone() -> None:
    there = datetime(2026, 11, 21, 18, tzinfo=ZoneInfo("Asia/Tokyo"))
    read = UtcDateTime().process_result_value(there, DefaultDialect())
    assert read is not None
    assert read.isoformat() == datetime(2026, 11, 21, 9, tzinfo=UTC).isoformat()
