"""Image ingest: writes, hashes, decompresses and inspects an upload in one pass and constant memory.

The calling thread reads, inspects and decompresses. The writer and each hash run in their own thread behind a bounded
queue; hashing and writing release the GIL, so they run in parallel.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Queue
from threading import Thread
from typing import Any

from app.core.errors import BadRequest, TooLarge
from image_api.ingest.compression import MAGIC_BYTES, Decompression, detect_compression
from image_api.ingest.formats import Inspection
from image_api.stores.file import Store, StoreFull, Writer
from image_api.stores.object_keys import disk_key

PIECE_BYTES = 512 << 10
QUEUED_PIECES = 8
UNLIMITED = 1 << 62
HASH_ALGORITHM = "sha512"
STORED_COMPRESSED = frozenset({"ari", "aki"})
"""Disk formats that are stored as uploaded: kernels and ram disks are normally compressed."""


class EmptyUpload(BadRequest):
    """The upload has no bytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits in bytes: size of the object, size of the disk (actual and virtual), total of the project's images."""

    object_bytes: int
    disk_bytes: int
    project_bytes: int = UNLIMITED


@dataclass(frozen=True, slots=True)
class StoredContent:
    """Result of an ingest. `disk_size` and `disk_hash` describe the decompressed disk."""

    size: int
    checksum: str
    hash_value: str
    format: str
    virtual_size: int
    compression: str | None
    disk_size: int
    disk_hash: str

    @property
    def stored_bytes(self) -> int:
        """Bytes used in the store: the upload, and the decompressed disk if there is one."""
        return self.size + (self.disk_size if self.compression else 0)


def ingest(
    pieces: Iterator[bytes],
    store: Store,
    name: str,
    declared: str,
    limits: Limits,
    alive: Callable[[], None] = lambda: None,
) -> StoredContent:
    """Store an image as `name`. `alive` is called for every piece and may raise to abort.

    Raises BadRequest for a refused image, TooLarge for an image over its limit or a full store, and the exceptions of
    `pieces`. Nothing is left in the store on error.
    """
    try:
        with ExitStack() as stack:
            upload = stack.enter_context(
                _ObjectPipeline(store.writer(name, sparse=True), limits.object_bytes, md5=True)
            )
            disk = _DiskPipeline(store, name, declared, limits, stack)
            for piece in pieces:
                alive()
                upload.feed(piece)
                disk.feed(piece)
            if upload.size == 0:
                raise EmptyUpload("The image is empty.")
            upload.finish()
            stored = disk.finish(upload)
            upload.commit()
            return stored
    except StoreFull:
        store.delete(disk_key(name))
        raise TooLarge("The image storage of this cloud is full: the image was not stored.") from None
    except BaseException:
        store.delete(disk_key(name))
        raise


def read_pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Read a stream in pieces of `PIECE_BYTES`, so that parsers and queues process few, large pieces."""
    while True:
        parts, missing = [], PIECE_BYTES
        while missing and (part := read(missing)):
            parts.append(part)
            missing -= len(part)
        if parts:
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        if missing:
            return


def join_pieces(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Join the parts of an iterator into pieces of at least `PIECE_BYTES`, except the last."""
    waiting: list[bytes] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += len(part)
        if count >= PIECE_BYTES:
            yield waiting[0] if len(waiting) == 1 else b"".join(waiting)
            waiting, count = [], 0
    if waiting:
        yield b"".join(waiting)


class _Stage:
    """Pipeline stage: a thread that applies a function to every piece, in order."""

    def __init__(self, work: Callable[[bytes], object]) -> None:
        self._work = work
        self._queue: Queue[bytes | None] = Queue(QUEUED_PIECES)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, piece: bytes) -> None:
        if self._error:
            raise self._error
        self._queue.put(piece)

    def finish(self) -> None:
        """Wait until all pieces are processed. Raises the first error of the stage."""
        self.stop()
        if self._error:
            raise self._error

    def stop(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (piece := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._work(piece)
                except BaseException as error:
                    self._error = error


class _ObjectPipeline:
    """Stages that write and hash one object."""

    def __init__(self, writer: Writer, most: int, *, md5: bool) -> None:
        self.size = 0
        self._writer = writer
        self._most = most
        self._hash = hashlib.new(HASH_ALGORITHM)
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        self._workers = [writer.write, self._hash.update, *([self._md5.update] if self._md5 else [])]
        self._stages: list[_Stage] = []

    def __enter__(self) -> "_ObjectPipeline":
        self._writer.__enter__()
        self._stages = [_Stage(work) for work in self._workers]
        return self

    def __exit__(self, *failure: Any) -> None:
        for stage in self._stages:
            stage.stop()
        self._writer.__exit__(*failure)

    def feed(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self._most:
            raise TooLarge(f"The image is larger than the maximum of {_gib(self._most)} GiB.")
        for stage in self._stages:
            stage.put(piece)

    def finish(self) -> None:
        stages, self._stages = self._stages, []
        for stage in stages:
            stage.finish()

    def commit(self) -> None:
        self._writer.commit()

    @property
    def hash_value(self) -> str:
        return self._hash.hexdigest()

    @property
    def checksum(self) -> str:
        return self._md5.hexdigest() if self._md5 else ""


class _DiskPipeline:
    """Stages that inspect the disk of an upload and, if it is compressed, store it decompressed."""

    def __init__(self, store: Store, name: str, declared: str, limits: Limits, stack: ExitStack) -> None:
        self._store, self._name, self._declared, self._limits, self._stack = store, name, declared, limits, stack
        self._inspection = Inspection()
        self._decompression: Decompression | None = None
        self._object: _ObjectPipeline | None = None
        self._begun = False
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def feed(self, piece: bytes) -> None:
        if not self._begun:
            self._begin(piece)
        if self._decompression is None or self._object is None:
            self._inspection.feed(piece)
            return
        for unpacked in self._decompression.feed(piece):
            self._waiting.append(unpacked)
            self._waiting_bytes += len(unpacked)
            if self._waiting_bytes >= PIECE_BYTES:
                self._flush()

    def _flush(self) -> None:
        """Pass the collected pieces on as one, so that parsers and queues process few, large pieces."""
        joined = b"".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        if self._object and joined:
            self._object.feed(joined)
            self._inspection.feed(joined)

    def _begin(self, piece: bytes) -> None:
        self._begun = True
        kind = detect_compression(piece[:MAGIC_BYTES])
        if kind is None or self._declared in STORED_COMPRESSED:
            return
        self._decompression = Decompression(kind)
        writer = self._store.writer(disk_key(self._name), sparse=True)
        self._object = self._stack.enter_context(_ObjectPipeline(writer, self._limits.disk_bytes, md5=False))

    def finish(self, upload: _ObjectPipeline) -> StoredContent:
        if self._decompression:
            self._decompression.finish()
            self._flush()
        found = self._inspection.finish(self._declared)
        if found.virtual_size > self._limits.disk_bytes:
            raise BadRequest(
                f"The image has a virtual size of {_gib(found.virtual_size)} GiB; "
                f"the maximum is {_gib(self._limits.disk_bytes)} GiB."
            )
        disk = upload
        if self._object:
            disk = self._object
            disk.finish()
            disk.commit()
        return StoredContent(
            size=upload.size,
            checksum=upload.checksum,
            hash_value=upload.hash_value,
            format=found.format,
            virtual_size=found.virtual_size,
            compression=self._decompression.name if self._decompression else None,
            disk_size=disk.size,
            disk_hash=disk.hash_value,
        )


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.6g}"
