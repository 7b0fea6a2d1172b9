"""Benchmark of clients that list their servers every second while servers are created and deleted, as nodepool."""

import time
from collections import deque
from collections.abc import Callable

from benchmarks.fleet import hands
from benchmarks.fleet.cluster import Cluster
from benchmarks.fleet.filling import Filled
from benchmarks.fleet.measuring import Load, Measured, together
from benchmarks.fleet.placing import COMPUTE, posting
from benchmarks.fleet.reading import get
from benchmarks.load import Client

LIVES_SECONDS = 3.0


def polled(
    cluster: Cluster, filled: Filled, api: int, *, seconds: float, creates_a_second: float
) -> dict[str, Measured]:
    """List each small project once a second while servers are created and deleted in one after the other."""
    tokens = [cluster.token("demo", project) for project, _ in filled.small]
    listing, creating, deleting = ([cluster.client(token) for token in tokens] for _ in range(3))
    living: deque[tuple[float, Client, str]] = deque()

    def create(number: int) -> None:
        turn = number % len(tokens)

        def lives(server_id: str) -> None:
            living.append((time.monotonic(), deleting[turn], server_id))

        posting(creating[turn], filled.image_id, made=lives)(number)

    def delete(_number: int) -> bool:
        if not living or time.monotonic() - living[0][0] < LIVES_SECONDS:
            return False
        _since, client, server_id = living.popleft()
        status, answer = client("DELETE", f"{COMPUTE}/servers/{server_id}")
        assert status == 204, answer
        return True

    loads = {
        f"GET servers/detail, {len(tokens)} projects each a second": Load([_lists(one) for one in listing], every=1.0),
        f"POST servers, {creates_a_second:g} a second": Load([create], every=1 / creates_a_second),
        f"DELETE server, {creates_a_second:g} a second": Load([delete], every=1 / creates_a_second),
    }
    with hands.at_work(cluster.settings):
        found = together(cluster.trees(api), loads, seconds=seconds)
    return {what: measured for what, measured in found.items() if measured.took}


def _lists(client: Client) -> Callable[[int], object]:
    return lambda _number: get(client, f"{COMPUTE}/servers/detail")
