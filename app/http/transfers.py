"""Bodies that are streamed: uploads on their way from the event loop to a thread, and downloads to a client.

The event loop feeds an `Upload` and a thread reads it as a WSGI input. A `Download` is the body of a response that a
server may send by itself; iterating over it gives the same bytes to servers that cannot.
"""

import asyncio
import fcntl
import os
import select
import socket
import struct
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestTimeout

BUFFERED_BYTES = 4 << 20
"""Bytes of an upload that wait for its thread before the connection is read no further."""
PIPE_BYTES = 1 << 20
OPEN_SECONDS = 30.0
"""Seconds in which a server begins to read a pipe, or the connection is gone already."""
SLOW = "The transfer was slower than {rate} KiB/s."

View = TypeVar("View", bound=Callable[..., Any])


def streamed(view: View) -> View:
    """Mark a view that reads its body piece by piece; other views get theirs complete, at most 1 MiB."""
    view.streamed = True  # type: ignore[attr-defined]
    return view


@dataclass(frozen=True, slots=True)
class MinimumRate:
    """The rate that a transfer must keep, counted while it waits for the client. 0 is without limit.

    A client has `grace_seconds` of waiting in advance; bytes win back what they may take at this rate.
    """

    kib_per_second: int
    grace_seconds: float


class WaitBudget:
    """The seconds that one transfer may still wait for its client."""

    def __init__(self, rate: MinimumRate) -> None:
        self._most = rate.grace_seconds
        self._bytes_per_second = rate.kib_per_second << 10
        self._left = rate.grace_seconds

    @property
    def seconds(self) -> float | None:
        """None is without limit."""
        return max(0.0, self._left) if self._bytes_per_second else None

    def progress(self, count: int, waited: float) -> None:
        """So many bytes came after so many seconds of waiting."""
        if self._bytes_per_second:
            self._left = min(self._most, self._left - waited + count / self._bytes_per_second)


class Upload:
    """A request body: written by a task of the event loop, read by a thread.

    The task starts with the first read, so that `100 Continue` is sent only when the body is wanted.
    """

    def __init__(self, chunks: Callable[[], Awaitable[bytes | None]], rate: MinimumRate) -> None:
        """`chunks` returns the next bytes, or None after a complete body. Raises ClientDisconnected."""
        self._chunks = chunks
        self._rate = rate
        self._patience = WaitBudget(rate)
        self._loop = asyncio.get_running_loop()
        self._space = asyncio.Event()
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._complete = False
        self._error: HTTPException | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = False
        self._discard = False
        self.drain_bytes = 0
        """Bytes to read before the response is sent; set by the thread."""

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, empty at the end. Raises ClientDisconnected, RequestTimeout."""
        if size < 0:
            return b"".join(iter(lambda: self.read(BUFFERED_BYTES), b""))
        if size == 0:
            return b""
        if not self._started:
            self._started = True
            self._loop.call_soon_threadsafe(self._start)
        with self._changed:
            while not self._waiting and not self._complete and self._error is None:
                self._changed.wait()
            if not self._waiting:
                if self._error is not None:
                    raise self._error
                return b""
            chunk = self._waiting.popleft()
            if len(chunk) > size:
                self._waiting.appendleft(chunk[size:])
                chunk = chunk[:size]
            full = self._waiting_bytes >= BUFFERED_BYTES
            self._waiting_bytes -= len(chunk)
            if full and self._waiting_bytes < BUFFERED_BYTES:
                self._loop.call_soon_threadsafe(self._space.set)
        return chunk

    async def finish(self) -> None:
        """Discard up to `drain_bytes` more where that was asked for, and stop. Called once the response is known."""
        if self.drain_bytes:
            self._discard = True
            self._space.set()
            if self._task is None:
                self._start()
        elif self._task is not None:
            self._task.cancel()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task

    def _start(self) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._receive())

    async def _receive(self) -> None:
        discarded = 0
        try:
            while (chunk := await self._next()) is not None:
                if self._discard:
                    discarded += len(chunk)
                    if discarded > self.drain_bytes:
                        return
                    continue
                with self._changed:
                    self._waiting.append(chunk)
                    self._waiting_bytes += len(chunk)
                    full = self._waiting_bytes >= BUFFERED_BYTES
                    if full:
                        self._space.clear()
                    self._changed.notify()
                if full:
                    await self._space.wait()
            self._end(None)
        except HTTPException as error:
            self._end(error)
        except asyncio.CancelledError:
            self._end(ClientDisconnected())
            raise

    async def _next(self) -> bytes | None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._patience.seconds):
                chunk = await self._chunks()
        except TimeoutError:
            raise RequestTimeout(SLOW.format(rate=self._rate.kib_per_second)) from None
        self._patience.progress(len(chunk or b""), time.monotonic() - began)
        return chunk

    def _end(self, error: HTTPException | None) -> None:
        with self._changed:
            self._error, self._complete = error, error is None
            self._changed.notify()


class Download:
    """The body of a response: `length` bytes of the file `descriptor` from `start`, or `pieces` where there is none.

    `release` is called once, when the transfer is over.
    """

    def __init__(
        self, pieces: Iterator[bytes], length: int, release: Callable[[], None], source: tuple[int, int] | None
    ) -> None:
        """`source` is an open descriptor, which `pieces.close` closes, and the offset to start from."""
        self._pieces = pieces
        self._release = release
        self.length = length
        self.source = source

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self._release()


def make_download(pieces: Iterator[bytes], length: int, release: Callable[[], None]) -> Download:
    """A download of `pieces`, which may have a file as `source` and be closed."""
    return Download(pieces, length, release, getattr(pieces, "source", None))


def send(download: Download, open_reader: Callable[[str], None], rate: MinimumRate, peer: str) -> None:
    """Send a download through a pipe that the server reads; blocks until all but a pipeful is taken, then closes it.

    granian's responses are either a file or an unbounded queue. A pipe is a file with a bound: the kernel blocks the
    reader, this thread sees how fast the client takes the bytes, and a short write ends the response early, which the
    client notices by its Content-Length. `open_reader` is given a path that the server opens for reading. A client
    that is too slow is disconnected.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    taken = False
    try:
        with suppress(OSError):  # beyond the user's limit for pipes
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        poll = select.poll()
        poll.register(writer, select.POLLOUT)
        patience = WaitBudget(rate)
        open_reader(f"/proc/self/fd/{reader}")
        sent = 0
        for put in _parts(download, writer):
            while (count := put()) is None:
                if not taken and _waiting_bytes(reader) < sent:  # the server has opened its end
                    os.close(reader)
                    taken = True
                began, seconds = time.monotonic(), patience.seconds
                if seconds is None and not taken:
                    seconds = OPEN_SECONDS
                if not poll.poll(None if seconds is None else seconds * 1000):
                    _disconnect(peer)
                    return
                patience.progress(0, time.monotonic() - began)
            sent += count
            patience.progress(count, 0)
    except BrokenPipeError:
        return
    finally:
        os.close(writer)
        if not taken:
            os.close(reader)
        download.close()


def _waiting_bytes(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def _parts(download: Download, writer: int) -> Iterator[Callable[[], int | None]]:
    """Functions that write the next part and return its length, or None when the pipe is full."""
    if download.source is not None:
        source = _Splice(*download.source, download.length, writer)
        while source.left:
            yield source.put
        return
    for piece in download:
        copy = _Copy(piece, writer)
        while copy.left:
            yield copy.put


class _Splice:
    """A range of a file on its way into a pipe, without a copy."""

    def __init__(self, descriptor: int, offset: int, length: int, writer: int) -> None:
        self._descriptor, self._offset, self._writer = descriptor, offset, writer
        self.left = length

    def put(self) -> int | None:
        try:
            count = os.splice(self._descriptor, self._writer, min(self.left, PIPE_BYTES), offset_src=self._offset)
        except BlockingIOError:
            return None
        self._offset += count
        self.left = self.left - count if count else 0  # the file is shorter than it should be
        return count


class _Copy:
    """Bytes on their way into a pipe."""

    def __init__(self, piece: bytes, writer: int) -> None:
        self._rest, self._writer = memoryview(piece), writer

    @property
    def left(self) -> int:
        return len(self._rest)

    def put(self) -> int | None:
        try:
            count = os.write(self._writer, self._rest)
        except BlockingIOError:
            return None
        self._rest = self._rest[count:]
        return count


def _disconnect(peer: str) -> None:
    """Shut down this process's connection from `peer`, an ADDRESS:PORT: the server waits for slow clients forever."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as connection:
                    if connection.family not in (socket.AF_INET, socket.AF_INET6):
                        continue
                    host, port = connection.getpeername()[:2]
                    if peer in (f"{host}:{port}", f"[{host}]:{port}"):
                        reset = struct.pack("ii", 1, 0)  # a client that reads nothing takes no FIN either
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                        connection.shutdown(socket.SHUT_RDWR)
