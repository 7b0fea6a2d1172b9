"""Precompiled queries on pinned connections; bypasses the pool and Session (10 to 20 µs instead of 100 to 200).

On SQLite each thread pins a connection of its own. On PostgreSQL, where connections are expensive, all threads share
one behind a lock; a broken connection is replaced by the next query.
"""

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from app.db.database import Database


class ConnectionOwner:
    """Owner of a pinned connection: the connection returns to the pool once this object is garbage-collected."""


class Prepared:
    """A query compiled for the database's driver; parameters are the names of its `bindparam`s."""

    def __init__(self, database: "Database", query: Select[*tuple[Any, ...]]) -> None:
        compiled = query.compile(database.reader)
        self.sql = str(compiled)
        self._defaults = dict(compiled.params)
        self._order = compiled.positiontup if compiled.positional else None

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """Return the values in the driver's parameter style: by position or by name."""
        whole = {**self._defaults, **values}
        return whole if self._order is None else [whole[name] for name in self._order]


class PreparedReads:
    """Runs prepared queries. Thread-safe."""

    def __init__(self, database: "Database") -> None:
        self._database = database
        self._pinned: Any = threading.local() if database.is_sqlite else SimpleNamespace()
        self._lock = nullcontext() if database.is_sqlite else threading.Lock()
        driver = database.reader.dialect.loaded_dbapi
        self._driver_errors: tuple[type[Exception], ...] = (DBAPIError, driver.Error)
        self._prepared: dict[int, Prepared] = {}

    def rows(self, query: Select[*tuple[Any, ...]], values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run the query, retrying once on a new connection, and return all rows. The cache key is the query's
        identity, so build queries once, at import."""
        prepared = self._prepared.get(id(query))
        if prepared is None:
            prepared = self._prepared[id(query)] = Prepared(self._database, query)
        parameters = prepared.parameters(values)
        with self._lock:
            try:
                return self._rows(prepared.sql, parameters)
            except self._driver_errors:
                self._discard()
            try:
                return self._rows(prepared.sql, parameters)
            except self._driver_errors:
                self._discard()
                raise

    def _discard(self) -> None:
        if (owner := getattr(self._pinned, "owner", None)) is not None:
            self._database.discard_connection(owner)
        self._pinned.__dict__.clear()

    def _rows(self, sql: str, parameters: Any) -> list[tuple[Any, ...]]:
        cursor = getattr(self._pinned, "cursor", None)
        if cursor is None:
            self._pinned.owner = ConnectionOwner()
            cursor = self._pinned.cursor = self._database.pin_connection(self._pinned.owner).cursor()
        cursor.execute(sql, parameters)
        # Fetch all rows so that SQLite ends the statement: an open one would pin an old snapshot.
        return list(cursor.fetchall())
