"""A short failure campaign; `make chaos SECONDS=3600` runs a long one."""

import subprocess
import sys

import pytest

from tests.contract.conftest import need_a_host


@pytest.mark.timeout(900)
@pytest.mark.xdist_group("cluster")
def test_a_cloud_is_consistent_after_random_faults() -> None:
    need_a_host()
    command = [sys.executable, "-m", "tests.chaos.run", "--seconds", "45", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
