"""`python -m benchmarks.fleet`: a fleet of hosts that do not exist, on a PostgreSQL and a RabbitMQ that do.

Prints what clients, hosts and processes of a large cloud notice: latency, CPU, memory. docs/scaling.md reads it.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import cloud
from benchmarks.fleet import filling, placing, polling, printing, reading
from benchmarks.fleet.cluster import Cluster, cluster
from benchmarks.fleet.filling import Filled, Size
from benchmarks.fleet.processes import pss_mib
from tests.postgres import why_not

POLLED = ((30.0, 2.0), (15.0, 10.0))
"""For how many seconds, and how many servers are made and deleted each second."""


def main() -> int:
    """Exit status 1 when something that is needed is not there."""
    parser = argparse.ArgumentParser(prog="benchmarks.fleet", description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000, help="hosts (default: %(default)s)")
    parser.add_argument("--servers", type=int, default=100_000, help="servers that live (default: %(default)s)")
    parser.add_argument("--deleted", type=int, help="servers that lived once (default: as many)")
    parser.add_argument("--projects", type=int, default=200, help="projects, 23 at least (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="measure for a fifth of the time")
    asked = parser.parse_args()
    if (reason := why_not()) is not None:
        print(reason, file=sys.stderr)
        return 1
    deleted = asked.servers if asked.deleted is None else asked.deleted
    size = Size(hosts=asked.hosts, servers=asked.servers, deleted=deleted, projects=asked.projects)
    with tempfile.TemporaryDirectory(prefix="fleet-") as work, cluster(Path(work)) as made:
        measure(made, filled(made, size), 0.2 if asked.quick else 1.0)
    return 0


def filled(made: Cluster, size: Size) -> Filled:
    """Fill the cloud and say how it goes."""
    began = time.monotonic()
    for said in filling.fill(made.settings, size):
        if isinstance(said, Filled):
            return said
        print(f"{time.monotonic() - began:6.1f} s  {said}", flush=True)
    raise AssertionError("filling ends with what there is")


def measure(made: Cluster, there: Filled, patience: float) -> None:
    """Everything, one after the other; `patience` stretches what has no natural end."""
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
                made, there, api, seconds=max(seconds * patience, 5), creates_a_second=creates
            ).items():
                printing.line(what, found, alone=False)
            if found is not None:
                printing.shares(found)
        memory(made, api, "after polling")
        printing.head(f"Placement among {there.size.hosts} hosts")
        for what, found in placing.rows(made, there, api, patience):
            printing.line(what, found)
        memory(made, api, "after placement")


def memory(made: Cluster, api: int, when: str) -> None:
    """Print what the processes take; shared pages are counted once in all."""
    ours, theirs = pss_mib(api), pss_mib(made.postmaster)
    printing.figure(
        f"memory {when}, MiB",
        f"API {' + '.join(f'{one:.0f}' for one in ours)}; PostgreSQL {sum(theirs):.0f} in {len(theirs)} processes",
    )


if __name__ == "__main__":
    sys.exit(main())
