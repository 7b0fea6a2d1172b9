"""Stands in for all hosts where the way to them is not what is measured: operations are done as they come."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import select

from app.db import Database
from app.settings import Settings
from compute_api import finishing, operations
from compute_api.finishing import Outcome
from compute_api.models import Operation

LOOK_SECONDS = 0.05


@contextmanager
def at_work(settings: Settings) -> Iterator[None]:
    """Until it is left; what is queued then stays."""
    database = Database(settings.database)
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(database, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        database.dispose()


def _work(database: Database, stop: threading.Event) -> None:
    waiting = select(Operation.id).where(Operation.state == "queued").order_by(Operation.id).limit(100)
    while not stop.wait(LOOK_SECONDS):
        with database.reading() as session:
            ids = session.scalars(waiting).all()
        for operation_id in ids:
            with database.transaction() as session:
                operation = operations.claim(session, datetime.now(UTC), operation_id)
            if operation is not None:
                with database.transaction() as session:
                    finishing.finish(session, datetime.now(UTC), operation, Outcome())
