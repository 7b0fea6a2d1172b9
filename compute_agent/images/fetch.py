"""Download cache of image disks: one download per image at a time, resumable, verified by hash.

The host creates its base image from the file, so downloads are removed an hour after their last use.
"""

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from hypervisor.api.errors import ImageUnusable
from hypervisor.api.spec import ImageRef
from image_api.stores.file import ZEROS

log = logging.getLogger(__name__)

CACHE_SECONDS = 3600.0
MAX_FAILURES = 12
BACKOFF_SECONDS = 1.0
MAX_BACKOFF = 10
"""Retry backoff grows linearly up to `MAX_BACKOFF` pauses: all attempts take a minute, enough for an API restart."""
PROGRESS_SECONDS = 10.0


class TransferInterrupted(Exception):
    """The download failed or broke off; it may succeed when retried."""


@dataclass(frozen=True)
class Download:
    """A disk's bytes from `start`, which is 0 if the server ignored the requested offset. `total_bytes` is the
    size of the disk."""

    start: int
    total_bytes: int
    pieces: Iterator[bytes]


# Opens a disk at an offset. Raises TransferInterrupted, also from `pieces`, and ImageUnusable when it is unavailable.
Opener = Callable[[ImageRef, int], AbstractContextManager[Download]]


@dataclass(frozen=True)
class ImageCache:
    """The download directory."""

    directory: Path
    open: Opener
    backoff_seconds: float = BACKOFF_SECONDS

    def __post_init__(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, image: ImageRef) -> Path:
        """Return the disk as a file, which may be removed any time after it was opened. Raises ImageUnusable."""
        with self._lock(image.id):
            path = self.directory / image.id
            if not path.exists():
                self._remove_expired()
                part = path.with_suffix(".part")
                self._fetch(image, part)
                part.rename(path)
            path.touch()
            return path

    @contextmanager
    def _lock(self, image_id: str, *, wait: bool = True) -> Iterator[None]:
        """Hold the image's lock among all processes.

        The holder removes the lock file, so a waiter checks that it has locked the current one. Raises BlockingIOError
        when `wait` is False and the lock is held.
        """
        path = self.directory / f"{image_id}.lock"
        while True:
            with path.open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_file_of(path, lock):
                    continue
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return

    def _fetch(self, image: ImageRef, part: Path) -> None:
        failures, reason = 0, ""
        while failures < MAX_FAILURES:
            time.sleep(self.backoff_seconds * min(failures, MAX_BACKOFF))
            before = _size(part)
            try:
                self._resume(image, part)
                break
            except TransferInterrupted as error:
                reason = str(error)
            except OSError as error:
                raise ImageUnusable(f"Image {image.id} cannot be stored on this host: {error.strerror}.") from None
            log.warning("Download of image %s interrupted after %d bytes: %s", image.id, _size(part), reason)
            failures = 0 if _size(part) > before else failures + 1
        else:
            raise ImageUnusable(f"Image {image.id} cannot be fetched: {reason}.")
        if image.sha512 is not None and _sha512(part) != image.sha512:
            part.unlink()
            raise ImageUnusable(f"Image {image.id} does not match its hash in the image service.")

    def _resume(self, image: ImageRef, part: Path) -> None:
        """Download the missing part. Raises TransferInterrupted."""
        with self.open(image, _size(part)) as stream:
            if stream.start > stream.total_bytes:  # the partial file is longer than the image: not from this image
                part.unlink()
                raise TransferInterrupted("the partial file does not match")
            logged = time.monotonic()
            with part.open("r+b" if part.exists() else "wb") as file:
                file.seek(stream.start)
                file.truncate()
                try:
                    for piece in stream.pieces:
                        _write(file, piece)
                        if time.monotonic() - logged > PROGRESS_SECONDS:
                            logged = time.monotonic()
                            log.info("Image %s: %d of %d MiB", image.id, file.tell() >> 20, stream.total_bytes >> 20)
                finally:
                    file.truncate()
        if _size(part) != stream.total_bytes:
            raise TransferInterrupted(f"received {_size(part)} of {stream.total_bytes} bytes")

    def _remove_expired(self) -> None:
        """Remove expired downloads and the locks of dead processes, except those that another process has locked."""
        for path in self.directory.iterdir():
            if _is_expired(path):
                with suppress(BlockingIOError), self._lock(path.stem, wait=False):
                    if path.suffix != ".lock" and _is_expired(path):
                        path.unlink()


def _is_expired(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime < time.time() - CACHE_SECONDS
    return False


def _is_file_of(path: Path, file: IO[str]) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _write(file: BinaryIO, piece: bytes) -> None:
    """Write a piece; zeros become holes."""
    for start in range(0, len(piece), len(ZEROS)):
        block = piece[start : start + len(ZEROS)]
        if block == ZEROS[: len(block)]:
            file.seek(len(block), os.SEEK_CUR)
        else:
            file.write(block)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _sha512(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest()
