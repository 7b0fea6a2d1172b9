"""Benchmark of the CPU time of compute API requests, relative to the Flask baseline on the same server."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
from sqlalchemy import select, update

from app.db.database import Database
from benchmarks import cloud
from benchmarks.load import Client, Cost, measure
from compute_api.models import Server

COMPUTE = "/compute/v2.1"
MEMBER = "sixstack"


def rows() -> Iterator[tuple[str, Cost, Cost]]:
    """Yield the name of each request, its cost, and the cost of the baseline in the same run."""
    port = cloud.free_port()
    with cloud.process([sys.executable, "-m", "benchmarks.baseline", str(port)], {}, port) as pid:
        flask = measure(pid, _asking(Client(port), "GET", "/bytes"), seconds=1.0)
    yield "GET, Flask returning 1 KB", flask, flask
    for count in (100, 1000):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as work:
            yield from ((name, cost, flask) for name, cost in _of(Path(work), count))


def _of(work: Path, count: int) -> Iterator[tuple[str, Cost]]:
    settings = cloud.prepare(work / "state", cloud.free_port())
    with cloud.api(settings) as pid:
        subject, project = cloud.token(settings, MEMBER)
        image = cloud.populate(settings, project, count)
        old = Client(settings.address[1], {"X-Auth-Token": subject})
        new = Client(settings.address[1], {"X-Auth-Token": subject, "OpenStack-API-Version": "compute 2.96"})
        detail = f"{COMPUTE}/servers/detail"
        yield f"GET servers/detail, {count} servers, at 2.1", measure(pid, _asking(old, "GET", detail), seconds=1.0)
        yield "the same, at 2.96", measure(pid, _asking(new, "GET", detail), seconds=1.0)
        yield from _changing(settings, pid, old, detail)
        if count == 100:
            yield f"GET servers, {count} servers", measure(pid, _asking(old, "GET", f"{COMPUTE}/servers"), seconds=1.0)
            one = orjson.loads(old("GET", f"{COMPUTE}/servers")[1])["servers"][0]["id"]
            yield "GET server", measure(pid, _asking(old, "GET", f"{COMPUTE}/servers/{one}"), seconds=1.0)
            yield "GET flavors/detail", measure(pid, _asking(old, "GET", f"{COMPUTE}/flavors/detail"), seconds=1.0)
            yield "GET limits", measure(pid, _asking(old, "GET", f"{COMPUTE}/limits"), seconds=1.0)
            made: list[str] = []
            yield "POST server", measure(pid, _creating(old, image, made), seconds=1.0)
            yield "DELETE server", measure(pid, _deleting(old, made), seconds=0.0, least=len(made) // 4)


def _changing(settings: cloud.Settings, pid: int, client: Client, detail: str) -> Iterator[tuple[str, Cost]]:
    """Measure the server list while one in a hundred servers changes between requests."""
    database = Database(settings.database)
    with database.reading() as session:
        ids = list(session.scalars(select(Server.id)))

    def ask(number: int) -> int:
        changed = ids[number % 100 :: 100]
        with database.transaction() as session:
            session.execute(
                update(Server)
                .where(Server.id.in_(changed))
                .values(description=str(number))
                .execution_options(synchronize_session=False)
            )
        return _ok(client("GET", detail))

    yield "the same at 2.1, 1 % of servers changed since the last", measure(pid, ask, seconds=1.0)
    database.dispose()


def _asking(client: Client, method: str, path: str) -> Callable[[int], int]:
    return lambda _number: _ok(client(method, path))


def _creating(client: Client, image: str, made: list[str]) -> Callable[[int], int]:
    def ask(number: int) -> int:
        body = {"server": {"name": f"made-{number}", "imageRef": image, "flavorRef": "1"}}
        status, answer = client("POST", f"{COMPUTE}/servers", orjson.dumps(body))
        assert status == 202, answer
        made.append(orjson.loads(answer)["server"]["id"])
        return len(answer)

    return ask


def _deleting(client: Client, made: list[str]) -> Callable[[int], int]:
    def ask(_number: int) -> int:
        status, answer = client("DELETE", f"{COMPUTE}/servers/{made.pop()}")
        assert status == 204, answer
        return 0

    return ask


def _ok(answer: tuple[int, bytes]) -> int:
    assert answer[0] == 200, answer
    return len(answer[1])
