"""The database: connections come back whoever held them."""

import threading
from pathlib import Path

from sqlalchemy import text

from app.db import Database, Holder


def test_threads_that_end_give_back_the_connections_they_held(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/some.db", pool_size=1)
    keeping = threading.local()

    def hold() -> None:
        keeping.holder = Holder()
        database.hold(keeping.holder)

    for _ in range(5):
        thread = threading.Thread(target=hold)
        thread.start()
        thread.join()
    assert database.reader.pool.checkedout() == 1  # type: ignore[attr-defined]
    with database.reading() as session:
        assert session.scalar(text("SELECT 1")) == 1
    database.dispose()


def test_dispose_closes_what_is_held(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/some.db", pool_size=1)
    holder = Holder()
    held = database.hold(holder)
    database.dispose()
    assert not held.is_valid
