"""Benchmark of dispatch: from POST by database and broker to a host and back, and the cost of heartbeats."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import func, select, update

from app.db.database import Database
from benchmarks.fleet.cluster import Cluster
from benchmarks.fleet.filling import Filled
from benchmarks.fleet.measuring import Load, Measured, Window, together
from benchmarks.fleet.placing import posting
from compute_api.models import Heartbeat, Host, Operation
from compute_api.states import OPEN_OPERATION_STATES, OperationState

PATIENCE_SECONDS = 120.0
BURST = 1000
CONNECTIONS = 10
POSTS = 10


@dataclass(frozen=True)
class Dispatched:
    """`begun`: from when the request had been read until the host had claimed the operation; `done`: from then until
    the database knew it done. Both in seconds. `whole` has the CPU time, and the time of all."""

    begun: Sequence[float]
    done: Sequence[float]
    whole: Measured

    def percentiles(self) -> tuple[float, float, float, float]:
        """Return the 50th and 99th percentiles of `begun`, then of `done`, in milliseconds."""
        begun, done = (replace(self.whole, took=took) for took in (self.begun, self.done))
        return begun.percentile(50), begun.percentile(99), done.percentile(50), done.percentile(99)


class Operations:
    """Reads and modifies operations in the database."""

    def __init__(self, cluster: Cluster) -> None:
        self._database = Database(cluster.settings.database)

    def newest(self) -> int:
        with self._database.reading() as session:
            return session.scalar(select(func.max(Operation.id))) or 0

    def wait(self, since: int) -> list[tuple[float, float]]:
        """Wait until all newer operations are done; returns the seconds of each until its claim and its completion."""
        until = time.monotonic() + PATIENCE_SECONDS
        newer = select(func.count()).where(Operation.id > since, Operation.state.in_(OPEN_OPERATION_STATES))
        with self._database.reading() as session:
            while left := session.scalar(newer):
                assert time.monotonic() < until, f"{left} operations are still not done"
                time.sleep(0.02)
            columns = select(Operation.created_at, Operation.started_at, Operation.finished_at, Operation.state)
            rows = session.execute(columns.where(Operation.id > since)).all()
        assert all(row.state == OperationState.DONE for row in rows), "an operation has failed"
        return [
            ((row.started_at - row.created_at).total_seconds(), (row.finished_at - row.started_at).total_seconds())
            for row in rows
        ]

    def hosts(self) -> list[str]:
        with self._database.reading() as session:
            return list(session.scalars(select(Host.name).order_by(Host.seq)))

    def silence(self) -> None:
        """Set the last heartbeat of all hosts to the current time."""
        with self._database.transaction() as session:
            session.execute(update(Heartbeat).values(last_seen=func.now()))

    def forget(self) -> None:
        """Discard operations queued while no host was running."""
        with self._database.transaction() as session:
            session.execute(
                update(Operation)
                .where(Operation.state == OperationState.QUEUED)
                .values(state=OperationState.SUPERSEDED)
            )

    def close(self) -> None:
        self._database.dispose()


def steady(
    cluster: Cluster, filled: Filled, trees: dict[str, int], *, seconds: float, each: int, posts_a_second: float
) -> Dispatched:
    """Create servers at a constant rate, `size` with each POST, in one small project after the other."""
    clients = [cluster.client(cluster.token("demo", project)) for project, _ in filled.small]
    asks = [posting(client, filled.image_id, count=each) for client in clients]
    load = Load([lambda number: asks[number % len(asks)](number)], every=1 / posts_a_second)
    return _dispatched(cluster, trees, load, seconds)


def burst(cluster: Cluster, filled: Filled, trees: dict[str, int], *, size: int, host: str | None) -> Dispatched:
    """Create `size` servers as fast as possible, on the host if one is given."""
    clients = [cluster.client(cluster.token("admin")) for _ in range(CONNECTIONS)]
    each = max(size // CONNECTIONS // POSTS, 1)
    asks = [posting(client, filled.image_id, count=each, host=host) for client in clients]
    return _dispatched(cluster, trees, Load(asks), 0, least=POSTS)


def _dispatched(cluster: Cluster, trees: dict[str, int], load: Load, seconds: float, *, least: int = 1) -> Dispatched:
    found = Operations(cluster)
    try:
        since = found.newest()
        window = Window(trees)
        together({}, {"": load}, seconds=seconds, least=least)
        took = found.wait(since)
        return Dispatched([one[0] for one in took], [one[1] for one in took], window.until_now())
    finally:
        found.close()
