"""Disks that are fetched to a host: what is kept, what is removed, and what nobody may take away."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compute_agent.images.fetch import CACHE_SECONDS, Download, ImageCache, TransferInterrupted
from hypervisor.api.spec import ImageRef

CONTENT = os.urandom(70_000) + bytes(1 << 20) + os.urandom(9)


def image(name: str) -> ImageRef:
    return ImageRef(
        id=name,
        disk_format="raw",
        size_bytes=len(CONTENT),
        virtual_size_bytes=len(CONTENT),
        sha512=hashlib.sha512(CONTENT).hexdigest(),
    )


def grow_old(path: Path) -> None:
    os.utime(path, (time.time() - CACHE_SECONDS - 60,) * 2)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "fetched"


def fetched(directory: Path, *, before: Callable[[], None] = lambda: None) -> ImageCache:
    """From a store where `before` happens before the first byte of a disk is read."""

    @contextmanager
    def begin(_image: ImageRef, start: int) -> Iterator[Download]:
        before()
        yield Download(start, len(CONTENT), iter([CONTENT[start:]]))

    return ImageCache(directory, begin, backoff_seconds=0)


def test_what_nobody_asked_for_lately_is_removed(directory: Path) -> None:
    fetched(directory).path(image("old"))
    grow_old(directory / "old")
    for name in ("torn.part", "torn.lock"):  # of a process that was killed
        (directory / name).write_bytes(b"")
        grow_old(directory / name)
    fetched(directory).path(image("new"))
    assert [path.name for path in directory.iterdir()] == ["new"]


def test_what_is_just_fetched_is_not_removed_however_old_it_is(directory: Path) -> None:
    """Another process that looks for old files goes by what died days ago and is just being gone on with."""
    asked: list[int] = []

    def inspect_directory() -> None:
        asked.append(_size(directory / "one.part"))
        for suffix in ("part", "lock"):
            grow_old(directory / f"one.{suffix}")
        fetched(directory).path(image("two"))

    directory.mkdir()
    (directory / "one.part").write_bytes(CONTENT[:50_000])
    grow_old(directory / "one.part")
    assert fetched(directory, before=inspect_directory).path(image("one")).read_bytes() == CONTENT
    assert asked == [50_000], "it goes on where it was"
    assert sorted(path.name for path in directory.iterdir()) == ["one", "two"]


def test_holes_stay_holes_and_what_breaks_off_is_gone_on_with(directory: Path) -> None:
    starts: list[int] = []

    @contextmanager
    def begin(_image: ImageRef, start: int) -> Iterator[Download]:
        starts.append(start)
        yield Download(start, len(CONTENT), broken(start) if len(starts) == 1 else iter([CONTENT[start:]]))

    def broken(start: int) -> Iterator[bytes]:
        yield CONTENT[start : start + 100_000]
        raise TransferInterrupted("the store went away")

    path = ImageCache(directory, begin, backoff_seconds=0).path(image("one"))
    assert path.read_bytes() == CONTENT
    assert path.stat().st_blocks * 512 < len(CONTENT) // 2
    assert starts == [0, 100_000]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
