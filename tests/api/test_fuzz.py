"""A short run of the fuzzer; `make fuzz SECONDS=3600` is a long one."""

from pathlib import Path

from flask import Flask

from tests.fuzz.cloud import Cloud
from tests.fuzz.run import fuzz

SEED = 1


def test_mutated_requests_end_in_no_internal_error(routed: Flask, tmp_path: Path) -> None:
    cloud = Cloud(routed, tmp_path)
    report = fuzz(cloud, seed=SEED, seconds=10, most=1000)
    cloud.close()
    assert not report.failures, f"\n{report}\nRun it again: make fuzz SECONDS=60 SEED={SEED}"
