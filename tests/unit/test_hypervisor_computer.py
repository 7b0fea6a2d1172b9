"""Kernel settings of a host: neighbor table limits."""

from pathlib import Path

from hypervisor.base import host_facts


def test_neighbour_limits_are_raised_and_never_lowered(tmp_path: Path) -> None:
    for name, value in {"gc_thresh1": 128, "gc_thresh2": 99_999, "gc_thresh3": 1024}.items():
        (tmp_path / name).write_text(f"{value}\n")
    host_facts.raise_neighbour_limits(tmp_path)
    limits = {path.name: int(path.read_text()) for path in tmp_path.iterdir()}
    assert limits == {"gc_thresh1": 8192, "gc_thresh2": 99_999, "gc_thresh3": 65_536}


def test_a_namespace_without_neighbour_limits_is_left_alone(tmp_path: Path) -> None:
    host_facts.raise_neighbour_limits(tmp_path / "absent")
    assert not list(tmp_path.iterdir())
