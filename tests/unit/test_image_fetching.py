"""Image cache of remote hosts: resumed downloads, removal of old files, locks of downloads in progress."""

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


def image_cache(directory: Path, *, before: Callable[[], None] = lambda: None) -> ImageCache:
    """Return a cache whose store calls `before` ahead of the first byte of a download."""

    @contextmanager
    def begin(_image: ImageRef, start: int) -> Iterator[Download]:
        before()
        yield Download(start, len(CONTENT), iter([CONTENT[start:]]))

    return ImageCache(directory, begin, backoff_seconds=0)


def test_unused_images_are_removed(directory: Path) -> None:
    image_cache(directory).path(image("old"))
    grow_old(directory / "old")
    for name in ("torn.part", "torn.lock"):  # leftovers of a killed process
        (directory / name).write_bytes(b"")
        grow_old(directory / name)
    image_cache(directory).path(image("new"))
    assert [path.name for path in directory.iterdir()] == ["new"]


def test_resumed_download_is_not_removed_as_old(directory: Path) -> None:
    """Cleanup by another process skips old partial files whose download has just been resumed."""
    sizes: list[int] = []

    def inspect_directory() -> None:
        sizes.append(_size(directory / "one.part"))
        for suffix in ("part", "lock"):
            grow_old(directory / f"one.{suffix}")
        image_cache(directory).path(image("two"))

    directory.mkdir()
    (directory / "one.part").write_bytes(CONTENT[:50_000])
    grow_old(directory / "one.part")
    assert image_cache(directory, before=inspect_directory).path(image("one")).read_bytes() == CONTENT
    assert sizes == [50_000], "the download resumes at the end of the partial file"
    assert sorted(path.name for path in directory.iterdir()) == ["one", "two"]


def test_downloads_resume_and_keep_holes(directory: Path) -> None:
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
