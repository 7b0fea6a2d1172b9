"""`python -m benchmarks.fleet`: benchmarks with simulated hosts on a real PostgreSQL and RabbitMQ.

Prints what clients, hosts and processes of a large cloud notice: latency, CPU, memory. docs/scaling.md reads it.
"""

import argparse
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import cloud
from benchmarks.fleet import dispatching, engine, filling, placing, polling, printing, reading
from benchmarks.fleet.cluster import Cluster, cluster
from benchmarks.fleet.dispatching import Operations
from benchmarks.fleet.filling import Filled, Size
from benchmarks.fleet.measuring import Measured, Window
from benchmarks.fleet.processes import pss_mib
from tests.postgres import why_not as no_postgres
from tests.rabbitmq import RabbitMQ, rabbitmq
from tests.rabbitmq import why_not as no_rabbitmq

PARTS = ("database", "engine")
LOOK_SECONDS = 15.0
"""Polling interval of remote hosts."""
STEADY = ((1, 2.0), (1, 20.0), (10, 10.0))
"""Servers per request, and requests per second."""
POLLED = ((30.0, 2.0), (15.0, 10.0))
"""Duration in seconds, and servers created and deleted per second."""


def main() -> int:
    """Run the benchmarks; exit status 1 when PostgreSQL or RabbitMQ is not available."""
    parser = argparse.ArgumentParser(prog="benchmarks.fleet", description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000, help="hosts (default: %(default)s)")
    parser.add_argument("--servers", type=int, default=100_000, help="servers that live (default: %(default)s)")
    parser.add_argument("--deleted", type=int, help="servers that lived once (default: as many)")
    parser.add_argument("--projects", type=int, default=200, help="projects, 23 at least (default: %(default)s)")
    parser.add_argument("--patience", type=float, default=1.0, help="less is quicker and noisier (default: 1)")
    parser.add_argument("--look", type=float, default=LOOK_SECONDS, help="seconds between a host's own looks (15)")
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"any of {', '.join(PARTS)} (default: both)")
    asked = parser.parse_args()
    if (reason := no_postgres() or no_rabbitmq()) is not None:
        print(reason, file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # run the cleanup of context managers
    deleted = asked.servers if asked.deleted is None else asked.deleted
    size = Size(hosts=asked.hosts, servers=asked.servers, deleted=deleted, projects=asked.projects)
    with tempfile.TemporaryDirectory(prefix="fleet-") as work, cluster(Path(work)) as made:
        there, patience = filled(made, size), asked.patience
        if "database" in asked.parts:
            measure(made, there, patience)
        if "engine" in asked.parts:
            with rabbitmq(Path(work) / "mq") as broker:
                measure_engine(made, there, broker, patience, asked.look)
    return 0


def filled(made: Cluster, size: Size) -> Filled:
    """Populate the cloud and print the progress."""
    began = time.monotonic()
    for said in filling.fill(made.settings, size):
        if isinstance(said, Filled):
            return said
        print(f"{time.monotonic() - began:6.1f} s  {said}", flush=True)
    raise AssertionError("filling ends with what there is")


def measure(made: Cluster, there: Filled, patience: float) -> None:
    """Run all benchmarks in sequence; `patience` scales the duration of open-ended ones."""
    printing.figure("database, MiB", f"{made.database_mib():.0f}")
    with cloud.api(made.settings) as api:
        memory(made, api, "at the start")
        printing.head("Reads, one client")
        for what, found in reading.rows(made, there, api, patience):
            printing.line(what, found)
        memory(made, api, "after the reads")
    with cloud.api(made.settings) as api:
        for seconds, creates in POLLED:
            printing.head("Clients that poll while servers come and go")
            found = None
            for what, found in polling.polled(
                made, there, api, seconds=max(seconds * patience, 1), creates_a_second=creates
            ).items():
                printing.line(what, found, alone=False)
            if found is not None:
                printing.shares(found)
        memory(made, api, "after polling")
        printing.head(f"Placement among {there.size.hosts} hosts")
        for what, found in placing.rows(made, there, api, patience):
            printing.line(what, found)
        memory(made, api, "after placement")
    database = Operations(made)
    database.forget()
    database.close()


def measure_engine(made: Cluster, there: Filled, mq: RabbitMQ, patience: float, look: float) -> None:
    """Measure dispatch to hosts and their idle cost."""
    assert mq.process is not None
    database = Operations(made)
    hosts = database.hosts()
    printing.figure("\nmemory of RabbitMQ at the start, MiB", f"{sum(pss_mib(mq.process.pid)):.0f}")
    began = time.monotonic()
    credentials = engine.add_hosts(mq, hosts)
    printing.figure(f"{len(hosts)} hosts added to RabbitMQ", f"in {time.monotonic() - began:.1f} s")
    settings = engine.with_broker(made.settings, mq)
    cloud_with_broker = replace(made, settings=settings)
    trees = {"postgres": made.postmaster, "broker": mq.process.pid}
    with engine.conductor(settings) as conductor:
        trees["conductor"] = conductor
        idle("no host is connected", trees, 15 * patience)
        database.silence()
        with engine.fakes(credentials, poll_seconds=0) as fakes:
            idle(f"{len(hosts)} hosts say that they live", trees, 30 * patience)
        with engine.fakes(credentials, poll_seconds=look) as fakes, cloud.api(settings) as api:
            idle(f"and look every {look:g} s", trees, 30 * patience)
            trees |= {"api": api, "fakes": fakes.pid}
            printing.dispatch_head("From the request to a host and back")
            for each, posts in STEADY:
                found = dispatching.steady(
                    cloud_with_broker, there, trees, seconds=max(20 * patience, 1), each=each, posts_a_second=posts
                )
                printing.dispatch_line(f"{each * posts:g} servers a second, {each} by a request", found)
            for name in ("broker", "conductor", "api"):
                printing.figure(f"memory of {printing.NAMES[name]}, MiB", f"{sum(pss_mib(trees[name])):.0f}")
            burst = min(dispatching.BURST, there.size.servers // 10)
            for what, host in (("over all hosts", None), ("on one host", hosts[0])):
                found = dispatching.burst(cloud_with_broker, there, trees, size=burst, host=host)
                printing.dispatch_line(f"{len(found.begun)} servers at once {what}", found)
        answered = Measured(fakes.answered, 1, {})
        printing.figure(
            f"{len(fakes.answered)} requests of hosts answered, p50 and p99 in ms",
            f"{answered.percentile(50):.1f} {answered.percentile(99):.1f}",
        )
    database.close()


def idle(what: str, trees: dict[str, int], seconds: float) -> None:
    """Print the CPU use of an idle system."""
    window = Window(trees)
    time.sleep(seconds)
    printing.figure(what, "")
    printing.shares(window.until_now())


def memory(made: Cluster, api: int, when: str) -> None:
    """Print the memory of the processes as PSS: shared pages are divided among them."""
    ours, theirs = pss_mib(api), pss_mib(made.postmaster)
    printing.figure(
        f"memory {when}, MiB",
        f"API {' + '.join(f'{one:.0f}' for one in ours)}; PostgreSQL {sum(theirs):.0f} in {len(theirs)} processes",
    )


if __name__ == "__main__":
    sys.exit(main())
