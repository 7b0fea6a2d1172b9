"""Benchmark of image uploads and downloads, relative to disk, hashlib and loopback with the same bytes.

Rates are of wall clock time, the best of several rounds. Each round runs all cases, so that other load affects all of
them. CPU seconds are those of all server processes; they indicate the rates on computers with more cores.
"""

import fcntl
import hashlib
import mmap
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson

from app.core.settings import Settings
from benchmarks import cloud
from benchmarks.load import Client, cpu_seconds

MEMBER = "sixstack"
MIB = 1 << 20
BLOCK = 64 * MIB
BLOCKS = 16
ROUNDS = 3
GOAL = 0.9
FLAT_MIB = 50


@dataclass
class Best:
    """Minimum wall clock and CPU seconds over several rounds of one GiB each."""

    wall: float = float("inf")
    cpu: float = float("inf")

    def add(self, wall: float, cpu: float) -> None:
        self.wall, self.cpu = min(self.wall, wall), min(self.cpu, cpu)


def show() -> None:
    """Print the rates, their ratios to the baselines, and the memory growth over 2 GiB."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as work, content_file() as content:
        settings = cloud.prepare(Path(work) / "state", cloud.free_port())
        with cloud.api(settings) as pid, plain_server(content) as plain:
            images = Images(settings, content)
            growth = images.growth(pid)
            found = _measured(images, pid, Path(work) / "plain", content, plain)
    disk, hashes, slower = found["disk"], found["hashes"], max(found["disk"].wall, found["hashes"].wall)
    print(f"Images of 1 GiB, best of {ROUNDS}. Goal: {GOAL} of the slower of the disk and both hashes.\n")
    print(f"{'':46} {'MiB/s':>7} {'part':>7} {'CPU s':>7}")
    for title, best, possible in (
        ("write a file past the page cache, and flush", disk, slower),
        ("md5 and sha512, each in a thread", hashes, slower),
        ("both at once, and loopback", found["together"], slower),
        ("PUT file, sized", found["sized"], slower),
        ("PUT file, chunked", found["chunked"], slower),
        ("sendfile, one socket to another", found["sendfile"], found["sendfile"].wall),
        ("GET file, again", found["again"], found["sendfile"].wall),
        ("read a file from the disk", found["read"], found["read"].wall),
        ("GET file, the first time", found["first"], found["read"].wall),
    ):
        print(f"{title:46} {1024 / best.wall:7.0f} {possible / best.wall:7.2f} {best.cpu:7.2f}")
    print(f"\nMemory of the API over 2 GiB up and down: {growth:.0f} MiB more. Goal: {FLAT_MIB} at most.\n")


def _measured(images: "Images", server: int, path: Path, content: int, plain: int) -> dict[str, Best]:
    turns: dict[str, tuple[Callable[[], None], Callable[[], float]]] = {
        "disk": (lambda: _write(path, content), time.process_time),
        "hashes": (lambda: _hash(content), time.process_time),
        "together": (
            lambda: _together(partial(_write, path, content), partial(_hash, content), partial(receive, plain)),
            time.process_time,
        ),
        "sized": (lambda: images.upload(chunked=False), lambda: cpu_seconds(server)),
        "chunked": (lambda: images.upload(chunked=True), lambda: cpu_seconds(server)),
        "read": (lambda: _read(path), time.process_time),
        "first": (images.download, lambda: cpu_seconds(server)),
        "sendfile": (lambda: receive(plain), time.process_time),
        "again": (images.download, lambda: cpu_seconds(server)),
    }
    found = {name: Best() for name in turns}
    for _ in range(ROUNDS):
        for name, (work, cpu) in turns.items():
            before, began = cpu(), time.perf_counter()
            work()
            found[name].add(time.perf_counter() - began, cpu() - before)
        images.clear()
    return found


class Images:
    """Client with minimal overhead: plain sockets, content sent by sendfile."""

    def __init__(self, settings: Settings, content: int) -> None:
        self._token, _project = cloud.token(settings, MEMBER)
        self._port = settings.address[1]
        self._content = content
        self._made: list[str] = []

    def upload(self, *, chunked: bool, blocks: int = BLOCKS) -> None:
        """Create an image and upload `blocks` blocks."""
        body = {"name": "benchmark", "disk_format": "raw", "container_format": "bare"}
        self._made.append(orjson.loads(self._api("POST", "/image/v2/images", orjson.dumps(body)))["id"])
        size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {blocks * BLOCK}"
        with self._ask("PUT", size, "Content-Type: application/octet-stream") as connection:
            for start in [*range(0, BLOCK, MIB)] * blocks:
                if chunked:
                    connection.sendall(b"%x\r\n" % MIB, socket.MSG_MORE)
                _send(connection, self._content, start, MIB)
                if chunked:
                    connection.sendall(b"\r\n", socket.MSG_MORE)
            if chunked:
                connection.sendall(b"0\r\n\r\n")
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 204 "), answer

    def download(self, *headers: str) -> None:
        """Download the last uploaded image."""
        with self._ask("GET", "Connection: close", *headers) as connection:
            _drain(connection)

    def clear(self) -> None:
        """Delete all uploaded images."""
        while self._made:
            self._api("DELETE", f"/image/v2/images/{self._made.pop()}")

    def growth(self, server: int) -> float:
        """Return the maximum memory growth in MiB of the largest server process during 2 GiB of transfers."""
        before, peak, done = _memory_mib(server), [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                peak[0] = max(peak[0], _memory_mib(server))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            self.upload(chunked=False, blocks=2 * BLOCKS)
            self.download()
        finally:
            done.set()
            watcher.join()
        return peak[0] - before

    def _api(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request on a new connection, since the server closes idle ones; returns the response body."""
        return Client(self._port, {"X-Auth-Token": self._token})(method, path, body)[1]

    def _ask(self, method: str, *headers: str) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port))
        lines = [f"{method} /image/v2/images/{self._made[-1]}/file HTTP/1.1", "Host: localhost", *headers]
        connection.sendall("\r\n".join([*lines, f"X-Auth-Token: {self._token}", "", ""]).encode())
        return connection


@contextmanager
def content_file() -> Iterator[int]:
    """Yield a memory file with a block of random bytes."""
    file = os.memfd_create("content")
    try:
        for _ in range(0, BLOCK, MIB):
            os.write(file, os.urandom(MIB))
        yield file
    finally:
        os.close(file)


@contextmanager
def plain_server(content: int) -> Iterator[int]:
    """Run a server that sends a GiB to each client; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _peer = listening.accept()
                except OSError:
                    return
                with connection:
                    for _ in range(BLOCKS):
                        _send(connection, content, 0, BLOCK)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def receive(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        _drain(connection)


def _drain(connection: socket.socket) -> None:
    buffer = bytearray(MIB)
    count = 0
    while got := connection.recv_into(buffer):
        count += got
    assert count >= BLOCKS * BLOCK, count


def _send(connection: socket.socket, file: int, start: int, count: int) -> None:
    end = start + count
    while start < end:
        start += os.sendfile(connection.fileno(), file, start, end - start)


def _write(path: Path, content: int) -> None:
    buffer = mmap.mmap(-1, 4 * MIB)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with suppress(OSError):  # not supported by all file systems
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_DIRECT)
    for start in [*range(0, BLOCK, len(buffer))] * BLOCKS:
        os.preadv(content, [buffer], start)
        os.write(file, buffer)
    os.fsync(file)
    os.close(file)


def _read(path: Path) -> None:
    """Read the file from disk; it was written with O_DIRECT, so it is not in the page cache."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(MIB):
            pass


def _hash(content: int) -> None:
    """Compute the hashes that Glance stores for each image."""

    def run(name: str) -> None:
        found = hashlib.new(name)
        for start in [*range(0, BLOCK, MIB)] * BLOCKS:
            found.update(os.pread(content, MIB, start))

    _together(partial(run, "md5"), partial(run, "sha512"))


def _together(*works: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _memory_mib(root: int) -> float:
    """Return the resident memory of the largest process among a process and its children."""
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    sizes = []
    for pid in [str(root), *children]:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        sizes += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")]
    return max(sizes)
