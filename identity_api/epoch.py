"""The epoch: a number in the database that moves when tokens may mean something else than before.

Each API process keeps what it found out about a token only as long as the epoch stands still.
"""

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from sqlalchemy import event, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db import Database, Holder
from identity_api.models import Epoch

ROW = 1


def bump(session: Session) -> None:
    """Make every process look again at every token, once this transaction is committed.

    The row is written last of all, so that transactions hold it for a moment only and never wait for each other in a
    circle.
    """
    if not session.info.get("identity_epoch"):
        session.info["identity_epoch"] = True
        event.listen(session, "before_commit", _move, once=True)


def _move(session: Session) -> None:
    session.info.pop("identity_epoch", None)
    session.execute(
        update(Epoch).where(Epoch.id == ROW).values(value=Epoch.value + 1).execution_options(synchronize_session=False)
    )


class EpochReader:
    """Reads the epoch for a few microseconds: the SQL is compiled once, the connection held.

    On SQLite each thread holds one of its own. On PostgreSQL, where connections are dear, all threads share one in
    turn; when it breaks the next reader makes another.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        query = select(Epoch.value).where(Epoch.id == ROW)
        self._sql = str(query.compile(database.reader, compile_kwargs={"literal_binds": True}))
        self._held: Any = threading.local() if database.is_sqlite else SimpleNamespace()
        self._turn = nullcontext() if database.is_sqlite else threading.Lock()
        driver = database.reader.dialect.loaded_dbapi
        self._lost: tuple[type[Exception], ...] = (DBAPIError, driver.Error)

    def read(self) -> int:
        """The epoch now; -1 before the first bootstrap."""
        with self._turn:
            try:
                return self._read()
            except self._lost:
                self._let_go()
            try:
                return self._read()
            except self._lost:
                self._let_go()
                raise

    def _let_go(self) -> None:
        if (holder := getattr(self._held, "holder", None)) is not None:
            self._database.lose(holder)
        self._held.__dict__.clear()

    def _read(self) -> int:
        cursor = getattr(self._held, "cursor", None)
        if cursor is None:
            self._held.holder = Holder()
            cursor = self._held.cursor = self._database.hold(self._held.holder).cursor()
        cursor.execute(self._sql)
        # All rows, so that SQLite ends the statement: an open one would hold an old snapshot.
        rows = cursor.fetchall()
        return int(rows[0][0]) if rows else -1
