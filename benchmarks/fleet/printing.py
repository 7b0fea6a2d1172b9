"""Prints tables of results."""

from benchmarks.fleet.dispatching import Dispatched
from benchmarks.fleet.measuring import Measured

TREES = ("api", "postgres")
NAMES = {
    "api": "API",
    "postgres": "PostgreSQL",
    "conductor": "conductor",
    "broker": "RabbitMQ",
    "fakes": "the fake hosts",
}


def head(title: str) -> None:
    print(f"\n{title}\n")
    print(f"{'':56}{'times':>6}{'/s':>7}{'p50 ms':>9}{'p99 ms':>9}{'API CPU':>9}{'PG CPU':>8}  ms", flush=True)


def line(what: str, found: Measured, *, alone: bool = True) -> None:
    """Print a result, with the CPU milliseconds per request if the load ran `alone`."""
    cpu = "".join(f"{found.cpu_ms(name):{width}.1f}" for name, width in zip(TREES, (9, 8), strict=True) if alone)
    print(
        f"{what:56}{len(found.took):6}{found.a_second:7.1f}{found.percentile(50):9.1f}{found.percentile(99):9.1f}{cpu}",
        flush=True,
    )


def figure(what: str, value: str) -> None:
    print(f"{what:56}{value}", flush=True)


def shares(found: Measured) -> None:
    """Print the CPU utilization of each process tree in percent of one core."""
    figure("  of one core", ", ".join(f"{NAMES[name]} {found.share(name):.1f} %" for name in found.cpu_seconds))


def dispatch_head(title: str) -> None:
    print(f"\n{title}\n")
    print(f"{'':40}{'servers':>8}{'/s':>7}{'begun p50':>11}{'p99':>8}{'done p50':>10}{'p99':>8}  ms", flush=True)


def dispatch_line(what: str, found: Dispatched) -> None:
    """Print the latency from request to claim and from claim to completion."""
    begun, begun_most, done, done_most = found.percentiles()
    count = len(found.begun)
    speed = count / found.whole.wall_seconds
    print(f"{what:40}{count:8}{speed:7.1f}{begun:11.0f}{begun_most:8.0f}{done:10.0f}{done_most:8.0f}", flush=True)
    shares(found.whole)
