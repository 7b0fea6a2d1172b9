"""Load generator: repeats a request and measures the CPU time of the server's processes."""

import http.client
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one request: server CPU and wall clock time in microseconds, size of the response in bytes."""

    cpu_us: float
    wall_us: float
    size: int


class Client:
    """HTTP client with one persistent connection."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = dict(headers or {})

    def __call__(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        headers = self._headers | ({"Content-Type": kind} if body is not None else {})
        self._connection.request(method, path, body=body, headers=headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()


def cpu_seconds(root: int) -> float:
    """Return user and system time of a process and its living descendants."""
    children: dict[int, list[int]] = {}
    times: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(path.parent.name)
        children.setdefault(int(fields[1]), []).append(pid)
        times[pid] = (int(fields[11]) + int(fields[12])) / TICKS
    total, todo = 0.0, [root]
    while todo:
        pid = todo.pop()
        total += times.get(pid, 0.0)
        todo += children.get(pid, [])
    return total


def measure(server: int, ask: Callable[[int], int], *, seconds: float, least: int = 20, rounds: int = 3) -> Cost:
    """Return the cheapest of several rounds. `ask` sends the request of a given number and returns the response size.

    CPU time is counted in hundredths of a second, so a round takes a good part of one at least.
    """
    for number in range(3):
        ask(number)
    best: Cost | None = None
    done = 3
    for _ in range(rounds):
        count, size = 0, 0
        before, began = cpu_seconds(server), time.perf_counter()
        while time.perf_counter() - began < seconds or count < least:
            size = ask(done)
            count += 1
            done += 1
        wall = time.perf_counter() - began
        cpu = cpu_seconds(server) - before
        found = Cost(cpu / count * 1e6, wall / count * 1e6, size)
        best = found if best is None or found.cpu_us < best.cpu_us else best
    assert best is not None
    return best
