"""Identity epoch: a counter in the database that is incremented by every change that affects tokens.

API processes cache the results of token validation until the epoch changes.
"""

from sqlalchemy import event, select, update
from sqlalchemy.orm import Session

from app.db.database import Database
from identity_api.models import Epoch

ROW_ID = 1
_EPOCH = select(Epoch.value).where(Epoch.id == ROW_ID)


def bump(session: Session) -> None:
    """Invalidate the token caches of all processes when this transaction commits.

    The row is updated just before commit, so that its lock is held briefly and transactions cannot deadlock on it.
    """
    if not session.info.get("identity_epoch"):
        session.info["identity_epoch"] = True
        event.listen(session, "before_commit", _increment, once=True)


def _increment(session: Session) -> None:
    session.info.pop("identity_epoch", None)
    session.execute(
        update(Epoch)
        .where(Epoch.id == ROW_ID)
        .values(value=Epoch.value + 1)
        .execution_options(synchronize_session=False)
    )


class EpochReader:
    """Reads the epoch with a prepared statement; takes a few microseconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> int:
        """Return the current epoch; -1 before the first bootstrap."""
        rows = self._database.prepared_reads.rows(_EPOCH, {})
        return int(rows[0][0]) if rows else -1
