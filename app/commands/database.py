"""`sixstack db copy` copies all rows to another database, such as from SQLite to PostgreSQL, in one transaction;
`sixstack db purge` deletes the rows of servers deleted long ago."""

import argparse
import fcntl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from sqlalchemy import Connection, Integer, Table, exc, func, inspect, make_url, select, text

import compute_api.models  # noqa: F401  registers all tables in the metadata
import identity_api.models  # noqa: F401
import image_api.models  # noqa: F401
import network_api.models  # noqa: F401
from app import bootstrap
from app.core.errors import OperatorError
from app.core.settings import Settings
from app.db.database import Base, Database, error_reason
from compute_api.operations import purge as operations_purge

ROWS = 1000
"""Batch size of reads and inserts."""

Row = Mapping[str, Any]


def copy(settings: Settings, parsed: argparse.Namespace) -> int:
    """Copy all rows and show progress. Raises OperatorError; the target is then unchanged."""
    from_url = parsed.from_url or settings.database
    to_url = parsed.to_url or parsed.target
    if to_url is None or (parsed.to_url and parsed.target):
        raise OperatorError("name the target database: `sixstack db copy URL`, or with --from URL --to URL.")
    with ExitStack() as undo:
        _check_file(from_url)
        source = _open_database(from_url)
        undo.callback(source.dispose)
        target = _open_database(to_url)
        undo.callback(target.dispose)
        if source.writer.url == target.writer.url:
            raise OperatorError("source and target are the same database.")
        undo.enter_context(_lock_state(source))
        try:
            reading = undo.enter_context(source.writer.connect())
            if not source.is_sqlite:
                reading = reading.execution_options(isolation_level="REPEATABLE READ")
            undo.enter_context(reading.begin())
            writing = undo.enter_context(target.writer.begin())
            _check(reading, writing, source)
            bootstrap.upgrade(writing)
            rows = copy_tables(reading, writing)
        except exc.DBAPIError as error:
            raise OperatorError(f"database error: {error_reason(error)}") from None
    print(f"Copied all {rows} rows. Start the cloud with --database-url {target.writer.url},")
    print("or set SIXSTACK_DATABASE_URL to it, which keeps the password out of the process list.")
    print("The old database is unchanged and no longer used.")
    return 0


def purge(settings: Settings, parsed: argparse.Namespace) -> int:
    """Delete the rows of servers deleted before a day and show progress. The cloud may be running."""
    before = _parse_day(parsed.before) if parsed.before else _days_ago(parsed.days)
    _check_file(settings.database)
    database = _open_database(settings.database)
    whole = operations_purge.PurgedCount()
    try:
        with database.reader.connect() as connection:
            _check_revision(connection, database)
        began = time.monotonic()
        for removed in operations_purge.purge(database, before, usage=parsed.with_usage, dry_run=parsed.dry_run):
            whole.servers += removed.servers
            whole.rows += removed.rows
            print(f"\r{whole.servers:10} servers {whole.rows:12} rows", end="", flush=True)
            if not parsed.dry_run:
                time.sleep(time.monotonic() - began)  # leave half of the time to other writers
            began = time.monotonic()
    except exc.DBAPIError as error:
        raise OperatorError(f"database error: {error_reason(error)}") from None
    finally:
        if whole.rows:
            print()
        database.dispose()
    which = f"{whole.servers} servers that were deleted before {before:%Y-%m-%d %H:%M} UTC, {whole.rows} rows in all"
    if parsed.dry_run:
        print(f"There are {which}. Nothing was removed.")
        return 0
    print(f"Removed {which}.")
    if not parsed.with_usage:
        print("Usage reports still include them.")
    return 0


def _parse_day(text: str) -> datetime:
    """Parse a date or datetime in ISO format; UTC unless it has an offset."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise OperatorError(f"--before must be a date such as 2026-08-31, not {text!r}.") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _days_ago(days: float) -> datetime:
    try:
        if days >= 0:
            return datetime.now(UTC) - timedelta(days=days)
    except (OverflowError, ValueError):
        pass
    raise OperatorError(f"--days must be a number of days, not {days:g}.")


def copy_tables(reading: Connection, writing: Connection) -> int:
    """Copy all tables in the order of their foreign keys, verify the counts, and return the number of rows."""
    tables = Base.metadata.sorted_tables
    for table in reversed(tables):
        writing.execute(table.delete())  # rows inserted by migrations
    total = 0
    for table in tables:
        total += _copy_table(reading, writing, table)
    return total


def _copy_table(reading: Connection, writing: Connection, table: Table) -> int:
    query = select(table).order_by(*table.primary_key.columns)
    result = reading.execution_options(yield_per=ROWS).execute(query)
    rows: Iterator[Row] = (dict(row) for row in result.mappings())
    if any(key.column.table is table for key in table.foreign_keys):
        rows = iter(_sort_parents_first(table, list(rows)))
    count = 0
    while batch := list(islice(rows, ROWS)):
        try:
            writing.execute(table.insert(), batch)
        except exc.DataError as error:
            raise OperatorError(
                f"table {table.name} holds what the new database cannot: {error_reason(error)}"
            ) from None
        count += len(batch)
        print(f"\r{table.name:40} {count:10} rows", end="", flush=True)
    for there in (reading, writing):
        if there.scalar(select(func.count()).select_from(table)) != count:
            raise OperatorError(f"table {table.name} changed during the copy; stop its clients and try again.")
    if count:
        print()
    if writing.dialect.name == "postgresql":
        _set_sequence(writing, table)
    return count


def _sort_parents_first(table: Table, rows: list[Row]) -> Iterable[Row]:
    """Order rows of a self-referencing table so that referenced rows come first."""
    referring = [key.parent.name for key in table.foreign_keys if key.column.table is table]
    (key,) = table.primary_key.columns
    done: set[Any] = {None}
    while rows:
        ready = [row for row in rows if all(row[name] in done or row[name] == row[key.name] for name in referring)]
        if not ready:
            raise OperatorError(f"rows of table {table.name} refer to each other in a cycle.")
        yield from ready
        done |= {row[key.name] for row in ready}
        rows = [row for row in rows if row[key.name] not in done]


def _set_sequence(writing: Connection, table: Table) -> None:
    """Set the sequence of the primary key to its highest value."""
    for column in table.primary_key.columns:
        if not isinstance(column.type, Integer):
            continue
        query = text("SELECT pg_get_serial_sequence(:table, :column)")
        sequence = writing.scalar(query, {"table": f'"{table.name}"', "column": column.name})
        highest = writing.scalar(select(func.max(column)))
        if sequence and highest is not None:
            writing.execute(text("SELECT setval(:sequence, :highest)"), {"sequence": sequence, "highest": highest})


def _check(reading: Connection, writing: Connection, source: Database) -> None:
    """Raise OperatorError unless the source has the current revision, the target is empty and neither has clients."""
    for connection in (reading, writing):
        if connection.dialect.name == "postgresql" and _has_other_clients(connection):
            raise OperatorError(f"{connection.engine.url} has other clients; stop the cloud first.")
    _check_revision(reading, source)
    if there := inspect(writing).get_table_names():
        raise OperatorError(f"the new database is not empty: it has a table {sorted(there)[0]}. Use an empty one.")


def _check_revision(connection: Connection, database: Database) -> None:
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None:
        raise OperatorError(f"{database.writer.url} contains no cloud.")
    if revision != bootstrap.head():
        raise OperatorError(
            f"the database is of another version of Sixstack ({revision}); start the cloud once with this version to "
            "migrate it."
        )


def _has_other_clients(connection: Connection) -> bool:
    """Whether this PostgreSQL database has other client connections."""
    query = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' "
        "AND pid <> pg_backend_pid()"
    )
    return connection.scalar(text(query)) is not None


@contextmanager
def _lock_state(source: Database) -> Iterator[None]:
    """Hold the supervisor's lock of a SQLite database's state directory. Raises OperatorError while the cloud runs."""
    path = source.writer.url.database
    if not source.is_sqlite or not path:
        yield
        return
    directory = Path(path).parent
    state = directory.parent if (directory.parent / "installation.json").exists() else directory
    with (state / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorError(
                "the cloud is running; stop it first with `sixstack down`. Its guests keep running."
            ) from None
        yield


def _check_file(url: str) -> None:
    """Raise OperatorError if a SQLite file does not exist: connecting would create it."""
    if _is_url(url) and make_url(url).get_backend_name() == "sqlite":
        path = make_url(url).database
        if not path or not Path(path).exists():
            raise OperatorError(f"there is no database {path}.")


def _open_database(url: str) -> Database:
    try:
        return Database(url)
    except OSError as error:
        raise OperatorError(f"{url} cannot be used: {error.strerror}.") from None


def _is_url(url: str) -> bool:
    try:
        make_url(url)
    except exc.ArgumentError:
        return False
    return True
