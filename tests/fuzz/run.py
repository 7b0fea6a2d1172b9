"""Sends mutated requests to all routes and checks for 5xx (except 501, 503), slow responses and memory growth.

    python -m tests.fuzz.run --seconds 600 --seed 7

On failure it prints the request as a curl command, the innermost line of the traceback and the seed.
"""

import argparse
import gc
import json
import logging
import random
import re
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Flask

from app.factory import create_unconfigured_app
from tests.fuzz.cloud import Cloud
from tests.fuzz.corpus import BODIES, V21
from tests.fuzz.mutation import Mutator, Request

CPU_SECONDS = 2.0
"""Maximum CPU time of a request."""
MEMORY_MIB = 150
"""Maximum growth of the process after the first tenth of the run."""
FRESH_EVERY = 4000
GONE = "compute.removed"
VALID = 0.3
"""Share of unmodified requests, which create resources that others refer to."""
_ROOT = Path(__file__).parents[2]


@dataclass
class Failure:
    """A fault of a response, and its request."""

    what: str
    where: str
    request: Request
    number: int

    def __str__(self) -> str:
        return f"#{self.number} {self.what}\n  at {self.where}\n  {self.request.curl()[:3000]}"


@dataclass
class Report:
    """The outcome of a run."""

    seed: int
    requests: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    failures: dict[tuple[str, str], Failure] = field(default_factory=dict)
    slowest_seconds: float = 0.0
    grown_mib: float = 0.0

    def __str__(self) -> str:
        counts = ", ".join(f"{status}: {number}" for status, number in sorted(self.statuses.items()))
        lines = [f"{self.requests} requests with SEED={self.seed} ({counts})"]
        lines += [f"slowest answer {self.slowest_seconds:.2f} s of CPU, memory grew by {self.grown_mib:.0f} MiB"]
        return "\n".join([*lines, *map(str, self.failures.values())])


class _Tracebacks(logging.Handler):
    """Keeps the last exception that was logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.last = record.exc_info[1]


def corpus(app: Flask) -> list[dict[str, Any]]:
    """A valid request for each body in the corpus, and one made up for each other route.

    Second spellings (HEAD, `.json`) and routes that answer 410 only are left out: they would be half of all requests.
    """
    found = []
    for rule in app.url_map.iter_rules():
        if rule.endpoint == GONE or rule.rule.endswith(".json"):
            continue
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            made_up = {re.split(r"[/<]", rule.rule)[-1].rstrip("s>"): {"name": "x"}}
            bodies = BODIES.get(f"{method} {rule.rule.removesuffix('.json')}", [made_up])
            for body in bodies if method in ("POST", "PUT", "PATCH") else [None]:
                kind = V21 if method == "PATCH" and rule.rule.startswith("/image") else None
                found.append({"method": method, "rule": rule.rule, "body": body, "type": kind})
    return sorted(found, key=lambda each: (each["rule"], each["method"]))


def by_route(requests: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The requests of each route, so that each route gets as many requests as the others."""
    routes: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in requests:
        routes.setdefault((each["method"], each["rule"]), []).append(each)
    return [routes[key] for key in sorted(routes)]


def fuzz(cloud: Cloud, *, seed: int, seconds: float, most: int | None = None) -> Report:
    """Send requests for so long, or so many."""
    tracebacks = _Tracebacks()
    logging.getLogger().addHandler(tracebacks)
    try:
        return _fuzz(cloud, tracebacks, seed, seconds, most)
    finally:
        logging.getLogger().removeHandler(tracebacks)


def _fuzz(cloud: Cloud, tracebacks: _Tracebacks, seed: int, seconds: float, most: int | None) -> Report:
    report = Report(seed)
    requests = corpus(cloud.app)
    routes = by_route(requests)
    creating = [each for each in requests if each["method"] == "POST" and each["body"] and "<" not in each["rule"]]
    mutator = Mutator(seed)
    chance = mutator.random
    start = time.monotonic()
    before: float | None = None
    while time.monotonic() - start < seconds and (most is None or report.requests < most):
        if report.requests % FRESH_EVERY == 0 or (report.requests % 50 == 0 and not cloud.works()):
            _start_again(cloud, mutator)
        if before is None and time.monotonic() - start > seconds / 10:
            before = _memory_mib()
        valid = chance.random() < VALID
        source = creating if valid and chance.random() < 0.5 else chance.choice(routes)
        request = mutator.make(chance.choice(source), valid=valid)
        report.requests += 1
        _send(cloud, cloud.tokens["admin" if chance.random() < 0.6 else "demo"], request, report, tracebacks, mutator)
        if report.requests % 25 == 0:
            try:
                cloud.work()
            except Exception as error:
                _note(report, "the host's work fails after it", error, request)
                _start_again(cloud, mutator)
    gc.collect()
    report.grown_mib = max(0.0, _memory_mib() - (before or _memory_mib()))
    return report


def _send(
    cloud: Cloud, token: str, request: Request, report: Report, tracebacks: _Tracebacks, mutator: Mutator
) -> None:
    """Send the request, check the answer and learn its ids."""
    tracebacks.last = None
    headers = {"X-Auth-Token": token, **request.headers}
    began = time.thread_time()
    try:
        answer = cloud.client.open(request.url, method=request.method, headers=headers, data=request.content)
        status, content = answer.status_code, answer.get_data()
    except Exception as error:
        status, content, tracebacks.last = 599, b"", error
    spent = time.thread_time() - began
    report.statuses[status] = report.statuses.get(status, 0) + 1
    report.slowest_seconds = max(report.slowest_seconds, spent)
    if status >= 500 and status not in (501, 503):
        _note(report, f"{status} {request.method} {request.path[:200]}", tracebacks.last, request)
    if spent > CPU_SECONDS:
        _note(report, f"{spent:.1f} s of CPU: {request.method}", None, request)
    if status < 300 and content[:1] == b"{":
        _learn(mutator, json.loads(content))


def _note(report: Report, what: str, error: BaseException | None, request: Request) -> None:
    where = "\n     ".join(_frames(error)) if error else request.path
    kind = f"{type(error).__name__}: {str(error)[:200]}" if error else what
    report.failures.setdefault(
        (type(error).__name__, where), Failure(f"{what}: {kind}", where, request, report.requests)
    )


def _frames(error: BaseException) -> Iterator[str]:
    """The lines of this project in the traceback, innermost first."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_ROOT) and ".venv" not in path.parts:
            yield f"{path.relative_to(_ROOT)}:{frame.lineno} {frame.name}"


def _start_again(cloud: Cloud, mutator: Mutator) -> None:
    cloud.restore()
    mutator.forget()
    _stock(cloud, mutator)


def _stock(cloud: Cloud, mutator: Mutator) -> None:
    """Make an image and two servers, and learn the ids of all objects."""
    as_demo = {"X-Auth-Token": cloud.tokens["demo"]}
    as_admin = {"X-Auth-Token": cloud.tokens["admin"]}
    image = {"name": "disk", "disk_format": "raw", "container_format": "bare"}
    made = cloud.client.post("/image/v2/images", json=image, headers=as_demo).json
    upload = {**as_demo, "Content-Type": "application/octet-stream"}
    cloud.client.put(f"/image/v2/images/{made['id']}/file", data=bytes(1 << 20), headers=upload)
    mutator.learn("image", made["id"])
    for name in ("one", "two"):
        server = {"name": name, "imageRef": made["id"], "flavorRef": "1"}
        created = cloud.client.post("/compute/v2.1/servers", json={"server": server}, headers=as_demo)
        assert created.status_code == 202, created.text
        mutator.learn("server", created.json["server"]["id"])
    cloud.work()
    for path in ("users", "projects", "domains", "roles", "regions", "services", "endpoints"):
        _learn(mutator, cloud.client.get(f"/identity/v3/{path}", headers=as_admin).json)
    for path in ("networks", "subnets", "ports", "subnetpools"):
        _learn(mutator, cloud.client.get(f"/network/v2.0/{path}", headers=as_admin).json)
    _learn(mutator, cloud.client.get("/compute/v2.1/flavors", headers=as_demo).json)


def _learn(mutator: Mutator, body: Any) -> None:
    """The ids in an answer, by the name of what they are of."""
    if not isinstance(body, dict):
        return
    if isinstance(body.get("id"), str):
        mutator.learn("image", body["id"])
    for name, value in body.items():
        for each in value[:5] if isinstance(value, list) else [value]:
            if isinstance(each, dict) and isinstance(each.get("id"), str | int):
                mutator.learn(name.rstrip("s") if isinstance(value, list) else name, str(each["id"]))


def _memory_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def main() -> int:
    """Run for a while; 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    parsed = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if parsed.seed is None else parsed.seed
    logging.basicConfig(level=logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="sixfuzz") as directory:
        cloud = Cloud(create_unconfigured_app(), Path(directory))
        report = fuzz(cloud, seed=seed, seconds=parsed.seconds)
        cloud.close()
    print(report)
    if report.grown_mib > MEMORY_MIB:
        print(f"memory grew by more than {MEMORY_MIB} MiB")
    return 1 if report.failures or report.grown_mib > MEMORY_MIB else 0


if __name__ == "__main__":
    sys.exit(main())
