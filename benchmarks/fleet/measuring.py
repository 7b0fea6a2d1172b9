"""Measures latency and CPU time of repeated requests from one or many connections."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.fleet.processes import cpu_seconds

Ask = Callable[[int], object]
"""Sends the request of a given number; returns False when it had nothing to send."""


@dataclass(frozen=True)
class Load:
    """A load: each of `asks` repeats in its own thread, as fast as possible or every `every` seconds."""

    asks: Sequence[Ask]
    every: float | None = None


@dataclass(frozen=True)
class Measured:
    """Result: seconds of each request, total time, and CPU time of each process tree."""

    took: Sequence[float]
    wall_seconds: float
    cpu_seconds: Mapping[str, float]

    def percentile(self, percent: float) -> float:
        """Return a percentile of the latency in milliseconds."""
        ordered = sorted(self.took)
        return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)] * 1000

    @property
    def a_second(self) -> float:
        return len(self.took) / self.wall_seconds

    def cpu_ms(self, name: str) -> float:
        """Return the CPU time per request in milliseconds."""
        return self.cpu_seconds[name] / len(self.took) * 1000

    def share(self, name: str) -> float:
        """Return the CPU utilization in percent of one core."""
        return self.cpu_seconds[name] / self.wall_seconds * 100


class Window:
    """CPU time of process trees since the creation of this object."""

    def __init__(self, trees: Mapping[str, int]) -> None:
        self._trees = trees
        self._before = {name: cpu_seconds(pid) for name, pid in trees.items()}
        self._began = time.perf_counter()

    def until_now(self, took: Sequence[float] = ()) -> Measured:
        """Return the result so far, with the latency of each request if any."""
        wall = time.perf_counter() - self._began
        return Measured(took, wall, {name: cpu_seconds(pid) - self._before[name] for name, pid in self._trees.items()})


def measure(trees: Mapping[str, int], asks: Sequence[Ask], *, seconds: float, least: int = 5) -> Measured:
    """Run one load for `seconds` and at least `least` requests each. `trees` are the process trees to measure."""
    return together(trees, {"": Load(asks)}, seconds=seconds, least=least)[""]


def together(
    trees: Mapping[str, int], loads: Mapping[str, Load], *, seconds: float, least: int = 1
) -> dict[str, Measured]:
    """Run several loads concurrently; each result has the CPU time of all. Stops and raises on the first failure."""
    took: dict[str, list[float]] = {name: [] for name in loads}
    failures: list[BaseException] = []
    window = Window(trees)
    began = time.perf_counter()

    def run(name: str, ask: Ask, every: float | None, begin: float) -> None:
        number = 0
        try:
            while not failures and (number < least or time.perf_counter() - began < seconds):
                if every is not None:
                    time.sleep(max(began + begin + number * every - time.perf_counter(), 0))
                at = time.perf_counter()
                if ask(number) is not False:
                    took[name].append(time.perf_counter() - at)
                number += 1
        except BaseException as failure:
            failures.append(failure)

    threads = [
        threading.Thread(target=run, args=(name, ask, load.every, (load.every or 0) * at / len(load.asks)))
        for name, load in loads.items()
        for at, ask in enumerate(load.asks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    whole = window.until_now()
    return {name: replace(whole, took=times) for name, times in took.items()}
