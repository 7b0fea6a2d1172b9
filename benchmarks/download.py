"""Benchmark of image downloads, whole and by range, relative to a plain server that calls sendfile."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import cloud
from benchmarks.image import BLOCK, BLOCKS, GOAL, MIB, Best, Images, content_file, plain_server, receive
from benchmarks.load import cpu_seconds

ROUNDS = 5


def show() -> None:
    """Print the rates and their ratio to sendfile's."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as work, content_file() as content:
        settings = cloud.prepare(Path(work) / "state", cloud.free_port())
        with cloud.api(settings) as pid, plain_server(content) as plain:
            images = Images(settings, content)
            images.upload(chunked=False)
            found = _measured(images, pid, plain)
    sendfile = found["sendfile, a bare server"].wall
    print(f"Downloads of 1 GiB from the page cache, best of {ROUNDS}. Goal: {GOAL} of sendfile.\n")
    print(f"{'':46} {'MiB/s':>7} {'ratio':>7} {'CPU s':>7}")
    for title, best in found.items():
        print(f"{title:46} {BLOCKS * BLOCK / MIB / best.wall:7.0f} {sendfile / best.wall:7.2f} {best.cpu:7.2f}")


def _measured(images: Images, server: int, plain: int) -> dict[str, Best]:
    turns: dict[str, tuple[Callable[[], None], int]] = {
        "sendfile, a bare server": (lambda: receive(plain), os.getpid()),
        "GET file": (images.download, server),
        "GET file, a range of all but the first byte": (lambda: images.download("Range: bytes=1-"), server),
    }
    images.download()  # warm the page cache
    found = {title: Best() for title in turns}
    for _ in range(ROUNDS):
        for title, (work, process) in turns.items():
            before, began = cpu_seconds(process), time.perf_counter()
            work()
            found[title].add(time.perf_counter() - began, cpu_seconds(process) - before)
    return found
