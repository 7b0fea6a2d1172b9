"""Image store interface, and its implementation in a local directory. Objects are immutable."""

import errno
import fcntl
import mmap
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self
from uuid import uuid4

from app.core.processes import start_time
from app.security.owned_files import inherit_owner

READ_BYTES = 1 << 20
BLOCK_BYTES = 4 << 20
ZEROS = bytes(64 << 10)


class StoreFull(Exception):
    """The store has no space for the object. No part of it is kept."""


class Writer(Protocol):
    """Writer of one object. Leaving the `with` block without `commit` removes the partial object."""

    def write(self, piece: bytes) -> None:
        """Append to the object. Raises StoreFull."""
        ...

    def commit(self) -> None:
        """Make the object durable and visible. Raises StoreFull."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """Image store. Object names are image ids with an optional suffix (`object_keys`), never user input."""

    def writer(self, name: str, *, sparse: bool = False) -> Writer:
        """Return a writer for a new object; with `sparse`, zeros may be stored as holes."""
        ...

    def read(self, name: str, start: int, length: int) -> Iterator[bytes]:
        """Return `length` bytes from offset `start`, in pieces. Raises FileNotFoundError."""
        ...

    def size(self, name: str) -> int:
        """Return the size in bytes. Raises FileNotFoundError."""
        ...

    def delete(self, name: str) -> None:
        """Delete the object; succeeds when it does not exist."""
        ...

    def rename(self, name: str, new: str) -> None:
        """Rename the object; succeeds when it does not exist, so that a retry is idempotent."""
        ...

    def names(self) -> Iterable[str]:
        """Return the names of all complete objects."""
        ...

    def local_path(self, name: str) -> Path | None:
        """Return the object as a local file; None when the store is remote or the object does not exist."""
        ...

    def free_bytes(self) -> int | None:
        """Return the free space in bytes; None when it is unknown."""
        ...

    def remove_abandoned_parts(self) -> None:
        """Remove partial objects of writers whose process is dead."""
        ...


class FileStore:
    """Image store in one directory. Files have mode 0600; partial ones are named `.<name>.<process>.<random>.part`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def writer(self, name: str, *, sparse: bool = False) -> "FileWriter":
        return FileWriter(self.directory, name, sparse=sparse)

    def read(self, name: str, start: int, length: int) -> Iterator[bytes]:
        file = (self.directory / name).open("rb", buffering=0)
        os.posix_fadvise(file.fileno(), start, length, os.POSIX_FADV_SEQUENTIAL)  # larger read-ahead
        return FilePieces(file, start, length)

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

    def remove_abandoned_parts(self) -> None:
        for path in self.directory.glob(".*.part"):
            pid, _, start = path.name.split(".")[-3].partition("-")
            if not pid.isdigit() or start_time(int(pid)) != start:
                path.unlink(missing_ok=True)


class FileWriter:
    """Writer of a temporary file; `commit` syncs it, then renames it.

    Whole blocks are written with O_DIRECT where the file system supports it: copying into the page cache takes more
    CPU time than the disk write, and an upload would evict the cached pages of guests and the database.
    """

    def __init__(self, directory: Path, name: str, *, sparse: bool) -> None:
        self._directory = directory
        self._target = directory / name
        process = f"{os.getpid()}-{start_time(os.getpid())}"
        self._path = directory / f".{name}.{process}.{uuid4().hex}.part"
        self._sparse = sparse
        self._block = mmap.mmap(-1, BLOCK_BYTES)  # page-aligned, as O_DIRECT requires
        self._filled = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise _translate_error(error) from error
        inherit_owner(self._file, directory)
        with suppress(OSError):  # not every file system supports O_DIRECT
            self._set_direct_io(True)

    def write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            count = min(len(rest), BLOCK_BYTES - self._filled)
            self._block[self._filled : self._filled + count] = rest[:count]
            self._filled += count
            rest = rest[count:]
            if self._filled == BLOCK_BYTES:
                try:
                    self._flush_block()
                except OSError as error:
                    raise _translate_error(error) from error

    def _flush_block(self) -> None:
        """Write the filled part of the block; zeros become holes in a sparse file."""
        with memoryview(self._block) as block:
            for start, end, hole in _data_runs(self._block, self._filled) if self._sparse else ((0, self._filled, 0),):
                while start < end:
                    start += self._write(block[start:end])
                if hole:
                    os.lseek(self._file, hole, os.SEEK_CUR)
        self._filled = 0

    def _write(self, run: memoryview) -> int:
        with run:
            try:
                return os.write(self._file, run)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._set_direct_io(False)  # unaligned offset, e.g. after a short write
                return os.write(self._file, run)

    def _set_direct_io(self, wanted: bool) -> None:
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)

    def commit(self) -> None:
        try:
            self._set_direct_io(False)  # the last block may end within a sector
            self._flush_block()
            os.ftruncate(self._file, os.lseek(self._file, 0, os.SEEK_CUR))
            os.fsync(self._file)
            self._path.rename(self._target)
            _sync_directory(self._directory)
        except OSError as error:
            raise _translate_error(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        self._path.unlink(missing_ok=True)


class FilePieces:
    """Iterator over a range of an open file. The file may be deleted while it is read.

    `source` is the file descriptor and offset, for servers that use sendfile.
    """

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self._file = file
        self._left = length
        self.source = file.fileno(), start
        file.seek(start)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self._file.read(min(READ_BYTES, self._left)) if self._left else b""
        if not piece:
            self.close()
            raise StopIteration
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Close the file."""
        self._left = 0
        self._file.close()


def _data_runs(block: mmap.mmap, count: int) -> Iterator[tuple[int, int, int]]:
    """Yield start and end of each run of data in a block, and the number of zeros after it to skip."""
    start, step = 0, len(ZEROS)
    for at in range(0, count - step + 1, step):
        if block[at] == 0 and block[at : at + step] == ZEROS:
            yield start, at, step
            start = at + step
    yield start, count, 0


def _translate_error(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull(error.strerror or "no space left")
    return error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)
