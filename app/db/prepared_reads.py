"""Queries so hot that a pool and a session would cost ten times as much as they do: a few microseconds each.

Their SQL is compiled once and run on connections that are held. On SQLite each thread holds one of its own. On
PostgreSQL, where connections are dear, all threads share one in turn; when it breaks the next reader makes another.
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
    """What a thread keeps as long as it keeps a connection."""


class Prepared:
    """A query as its driver takes it; its parameters are the names of its `bindparam`s."""

    def __init__(self, database: "Database", query: Select[*tuple[Any, ...]]) -> None:
        compiled = query.compile(database.reader)
        self.sql = str(compiled)
        self._defaults = dict(compiled.params)
        self._order = compiled.positiontup if compiled.positional else None

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """The values as the driver wants them: in order, or by name."""
        whole = {**self._defaults, **values}
        return whole if self._order is None else [whole[name] for name in self._order]


class PreparedReads:
    """Runs prepared queries; see above. Safe to use from several threads."""

    def __init__(self, database: "Database") -> None:
        self._database = database
        self._pinned: Any = threading.local() if database.is_sqlite else SimpleNamespace()
        self._lock = nullcontext() if database.is_sqlite else threading.Lock()
        driver = database.reader.dialect.loaded_dbapi
        self._driver_errors: tuple[type[Exception], ...] = (DBAPIError, driver.Error)
        self._prepared: dict[int, Prepared] = {}

    def rows(self, query: Select[*tuple[Any, ...]], values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """All rows of a query that was built once, at import: it is known again by its identity."""
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
        # All rows, so that SQLite ends the statement: an open one would hold an old snapshot.
        return list(cursor.fetchall())
