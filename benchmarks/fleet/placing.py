"""Benchmark of scheduling among many hosts: the claim alone, and POST from one and many connections."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import orjson

from app.db.database import Database
from benchmarks.fleet.cluster import Cluster
from benchmarks.fleet.filling import Filled
from benchmarks.fleet.measuring import Measured, measure
from benchmarks.load import Client
from compute_api.hosts import hosts

COMPUTE = "/compute/v2.1"
CONNECTIONS = (1, 4, 16)
SECONDS = 4.0
ROOM = {"vcpus": 1, "memory_mib": 128, "disk_gib": 1}


def rows(cluster: Cluster, filled: Filled, api: int, patience: float = 1.0) -> Iterator[tuple[str, Measured]]:
    """Yield names and results. Servers stay in BUILD because no host is running."""
    trees = cluster.trees(api)
    database = Database(cluster.settings.database, pool_size=max(CONNECTIONS))
    for many in CONNECTIONS:
        claims = [_claiming(database)] * many
        yield f"claim and commit, {_connections(many)}", measure(trees, claims, seconds=SECONDS * patience)
    database.dispose()
    projects = [project for project, _ in filled.small[: max(CONNECTIONS)]]
    clients = [cluster.client(cluster.token("demo", project)) for project in projects]
    for many in CONNECTIONS:
        posts = [posting(client, filled.image_id) for client in clients[:many]]
        yield f"POST servers, {_connections(many)}, each its project", measure(trees, posts, seconds=SECONDS * patience)
    token = cluster.token("demo", projects[0])
    posts = [posting(cluster.client(token), filled.image_id) for _ in projects]
    yield f"POST servers, {_connections(len(posts))}, one project", measure(trees, posts, seconds=SECONDS * patience)
    ten = [posting(clients[0], filled.image_id, count=10)]
    yield "POST servers, 10 by each request", measure(trees, ten, seconds=SECONDS * patience)


def posting(
    client: Client,
    image_id: str,
    *,
    count: int = 1,
    host: str | None = None,
    made: Callable[[str], None] | None = None,
) -> Callable[[int], None]:
    """Return a request that creates `count` servers, on the host if one is given, and passes the first id to `made`."""

    def ask(number: int) -> None:
        body = {
            "name": f"made-{threading.get_ident()}-{number}",
            "imageRef": image_id,
            "flavorRef": "1",
            "networks": "auto",
            "min_count": count,
            "max_count": count,
            **({"host": host} if host else {}),
        }
        status, answer = client("POST", f"{COMPUTE}/servers", orjson.dumps({"server": body}))
        assert status == 202, answer
        if made is not None:
            made(orjson.loads(answer)["server"]["id"])

    return ask


def _claiming(database: Database) -> Callable[[int], None]:
    def ask(_number: int) -> None:
        with database.transaction() as session:
            assert hosts.claim(session, datetime.now(UTC), **ROOM, zone=None, host=None) is not None

    return ask


def _connections(many: int) -> str:
    return "1 connection" if many == 1 else f"{many} connections"
