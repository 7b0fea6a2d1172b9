"""Where the bytes of images are kept. Objects are written once, under a name, and never change."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self
from uuid import uuid4

from app.processes import started

READ_BYTES = 1 << 20
FLUSH_BYTES = 8 << 20
ZEROS = bytes(64 << 10)


class StoreFull(Exception):
    """There is no room for the object; nothing of it was kept."""


class Writer(Protocol):
    """An object on its way into the store. Leaving the `with` block without `commit` removes every trace of it."""

    def write(self, piece: bytes) -> None:
        """Raises StoreFull."""
        ...

    def commit(self) -> None:
        """The object is complete, durable and visible after this. Raises StoreFull."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """What every place to keep images can do. Names are made by us: an image's id, perhaps with a suffix."""

    def writer(self, name: str, *, sparse: bool = False) -> Writer:
        """A new object; `sparse` may leave holes where there are zeros."""
        ...

    def read(self, name: str, start: int, length: int) -> Iterator[bytes]:
        """That many bytes from `start` on, in pieces. Raises FileNotFoundError."""
        ...

    def size(self, name: str) -> int:
        """In bytes. Raises FileNotFoundError."""
        ...

    def delete(self, name: str) -> None:
        """Content if it is gone."""
        ...

    def rename(self, name: str, new: str) -> None:
        """Content if it is gone, which it is when this was done before."""
        ...

    def names(self) -> Iterable[str]:
        """Every complete object."""
        ...

    def local_path(self, name: str) -> Path | None:
        """The file on this machine, None when the bytes are elsewhere or gone."""
        ...

    def free_bytes(self) -> int | None:
        """How much more fits, None when nobody knows."""
        ...

    def sweep(self) -> None:
        """Remove what writers left whose process is gone."""
        ...


class FileStore:
    """Files in one directory, readable by their owner only. Unfinished ones are called
    `.<name>.<process>.<random>.part`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def writer(self, name: str, *, sparse: bool = False) -> "FileWriter":
        return FileWriter(self.directory, name, sparse=sparse)

    def read(self, name: str, start: int, length: int) -> Iterator[bytes]:
        return _pieces((self.directory / name).open("rb", buffering=0), start, length)

    def size(self, name: str) -> int:
        return (self.directory / name).stat().st_size

    def delete(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)

    def rename(self, name: str, new: str) -> None:
        with suppress(FileNotFoundError):
            (self.directory / name).rename(self.directory / new)
            _sync_directory(self.directory)

    def names(self) -> Iterable[str]:
        return [entry.name for entry in self.directory.iterdir() if not entry.name.startswith(".")]

    def local_path(self, name: str) -> Path | None:
        path = self.directory / name
        return path if path.exists() else None

    def free_bytes(self) -> int | None:
        return shutil.disk_usage(self.directory).free

    def sweep(self) -> None:
        for path in self.directory.glob(".*.part"):
            pid, _, start = path.name.split(".")[-3].partition("-")
            if not pid.isdigit() or started(int(pid)) != start:
                path.unlink(missing_ok=True)


class FileWriter:
    """Writes to a temporary name; `commit` makes it durable, then renames it."""

    def __init__(self, directory: Path, name: str, *, sparse: bool) -> None:
        self._directory = directory
        self._target = directory / name
        process = f"{os.getpid()}-{started(os.getpid())}"
        self._path = directory / f".{name}.{process}.{uuid4().hex}.part"
        self._sparse = sparse
        self._unflushed = self._flushed = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise _full(error) from error

    def write(self, piece: bytes) -> None:
        try:
            for run, hole in _runs(piece) if self._sparse else ((memoryview(piece), 0),):
                while run:
                    count = os.write(self._file, run)
                    self._unflushed += count
                    run = run[count:]
                if hole:
                    os.lseek(self._file, hole, os.SEEK_CUR)
            if self._unflushed >= FLUSH_BYTES:
                self._begin_flush()
        except OSError as error:
            raise _full(error) from error

    def _begin_flush(self) -> None:
        """Let the kernel begin to write what is not on the disk yet, without waiting: the last flush is short then.
        That is what this advice does to dirty pages; they stay cached."""
        end = os.lseek(self._file, 0, os.SEEK_CUR)
        os.posix_fadvise(self._file, self._flushed, end - self._flushed, os.POSIX_FADV_DONTNEED)
        self._flushed, self._unflushed = end, 0

    def commit(self) -> None:
        try:
            os.ftruncate(self._file, os.lseek(self._file, 0, os.SEEK_CUR))
            os.fsync(self._file)
            self._path.rename(self._target)
            _sync_directory(self._directory)
        except OSError as error:
            raise _full(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        self._path.unlink(missing_ok=True)


def _pieces(file: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    """Opens before the first piece is asked for, so that a file deleted meanwhile is still read to its end."""

    def pieces() -> Iterator[bytes]:
        with file:
            file.seek(start)
            left = length
            while left and (piece := file.read(min(READ_BYTES, left))):
                left -= len(piece)
                yield piece

    return pieces()


def _runs(piece: bytes) -> Iterator[tuple[memoryview, int]]:
    """What to write, and how many zeros to leave out after it."""
    view, start, step = memoryview(piece), 0, len(ZEROS)
    for at in range(0, len(piece) - step + 1, step):
        if piece[at] == 0 and piece[at : at + step] == ZEROS:
            yield view[start:at], step
            start = at + step
    yield view[start:], 0


def _full(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull(error.strerror or "no space left")
    return error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)
