"""The epoch: a number in the database that moves when tokens may mean something else than before.

Each API process keeps what it found out about a token only as long as the epoch stands still.
"""

from sqlalchemy import event, select, update
from sqlalchemy.orm import Session

from app.db.database import Database
from identity_api.models import Epoch

ROW_ID = 1
_EPOCH = select(Epoch.value).where(Epoch.id == ROW_ID)


def bump(session: Session) -> None:
    """Make every process look again at every token, once this transaction is committed.

    The row is written last of all, so that transactions hold it for a moment only and never wait for each other in a
    circle.
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
    """Reads the epoch for a few microseconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> int:
        """The epoch now; -1 before the first bootstrap."""
        rows = self._database.prepared_reads.rows(_EPOCH, {})
        return int(rows[0][0]) if rows else -1
