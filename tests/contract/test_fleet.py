"""`make fleet` runs with few hosts and prints its results."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import postgres, rabbitmq

SMALL = ["--hosts", "5", "--servers", "300", "--projects", "24", "--patience", "0.02", "engine"]


def test_small_fleet_benchmark_runs() -> None:
    if (reason := postgres.why_not() or rabbitmq.why_not()) is not None:
        pytest.skip(reason)
    command = [sys.executable, "-m", "benchmarks.fleet", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        "300 servers and about 300 deleted ones",
        "5 hosts say that they live",
        "100 servers at once on one host",
        "requests of hosts answered",
    ):
        assert said in done.stdout
