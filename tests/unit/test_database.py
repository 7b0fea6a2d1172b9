"""The database: connections come back whoever held them."""

import gc
import threading
from pathlib import Path

from sqlalchemy import text

from app.db import Database


def test_threads_that_end_give_back_the_connections_they_held(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/some.db", pool_size=1)
    keeping = threading.local()

    def hold() -> None:
        keeping.connection = database.hold()

    for _ in range(5):
        thread = threading.Thread(target=hold)
        thread.start()
        thread.join()
        gc.collect()
    assert database.reader.pool.checkedout() == 0  # type: ignore[attr-defined]
    with database.reading() as session:
        assert session.scalar(text("SELECT 1")) == 1
    database.dispose()


def test_dispose_closes_what_is_held(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/some.db", pool_size=1)
    held = database.hold()
    database.dispose()
    assert not held.is_valid
