"""Completes the operations of all hosts directly in the database, for benchmarks without dispatch."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import select

from app.core.clock import SystemClock
from app.core.settings import Settings
from app.db.database import Database
from compute_api.conductor.service import LocalConductor
from compute_api.models import Operation
from compute_api.rpc.messages import Outcome
from image_api.stores.factory import make_store

LOOK_SECONDS = 0.05


@contextmanager
def at_work(settings: Settings) -> Iterator[None]:
    """Complete operations in a thread while the context is active; operations queued at its end stay."""
    database = Database(settings.database)
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(settings, database, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        database.dispose()


def _work(settings: Settings, database: Database, stop: threading.Event) -> None:
    waiting = select(Operation.id, Operation.host).where(Operation.state == "queued").order_by(Operation.id).limit(100)
    store = make_store(settings)
    while not stop.wait(LOOK_SECONDS):
        with database.reading() as session:
            found = session.execute(waiting).all()
        for operation_id, host in found:
            conductor = LocalConductor(database, SystemClock(), replace(settings, host_name=host), store)
            if (work := conductor.claim(operation_id)) is not None:
                conductor.finish(work, Outcome())
