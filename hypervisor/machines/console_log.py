"""Serial console log: qemu appends to it, the agent limits the disk space that it uses."""

import ctypes
import os
from pathlib import Path

CONSOLE_BYTES = 1 << 20
SLACK_BYTES = 1 << 18
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 0x01, 0x02
BLOCK = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def read_console_tail(path: Path) -> bytes:
    """Return the last MiB of the console log; empty without one."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - CONSOLE_BYTES))
            return file.read(CONSOLE_BYTES)
    except FileNotFoundError:
        return b""


def trim_console(path: Path) -> None:
    """Punch a hole before the last MiB of the log.

    The file keeps its length and becomes sparse, so qemu can append at the same time. A file system without holes keeps
    the whole file.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    if status.st_blocks * 512 <= CONSOLE_BYTES + SLACK_BYTES:
        return
    length = (status.st_size - CONSOLE_BYTES) // BLOCK * BLOCK
    if length > 0:
        with path.open("r+b") as file:
            _libc.fallocate(file.fileno(), FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, length)


def prepend_console(path: Path, before: bytes) -> None:
    """Insert the console log of the migration source at the beginning. qemu opens the log with O_APPEND."""
    with path.open("r+b") as file:
        since = file.read()
        file.seek(0)
        file.write(before + since)
