"""Lines of a table on the screen: what was asked, how long it took and what it cost."""

from benchmarks.fleet.measuring import Measured

TREES = ("api", "postgres")


def head(title: str) -> None:
    print(f"\n{title}\n")
    print(f"{'':56}{'times':>6}{'/s':>7}{'p50 ms':>9}{'p99 ms':>9}{'API CPU':>9}{'PG CPU':>8}  ms", flush=True)


def line(what: str, found: Measured, *, alone: bool = True) -> None:
    """CPU is in milliseconds a request; left out for what was not `alone`."""
    cpu = "".join(f"{found.cpu_ms(name):{width}.1f}" for name, width in zip(TREES, (9, 8), strict=True) if alone)
    print(
        f"{what:56}{len(found.took):6}{found.a_second:7.1f}{found.percentile(50):9.1f}{found.percentile(99):9.1f}{cpu}",
        flush=True,
    )


def figure(what: str, value: str) -> None:
    print(f"{what:56}{value}", flush=True)


def shares(found: Measured) -> None:
    """Of one core, while all of that went on."""
    api, postgres = (f"{found.share(name):.0f} %" for name in TREES)
    figure("  of one core", f"API {api}, PostgreSQL {postgres}")
