"""Tells the agent on this machine that there is something to do: a Unix datagram with operation ids.

Losing one is harmless: the agent also looks by itself, once a second.
"""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SOCKET_NAME = "agent.sock"
ASK_SOCKET_NAME = "agent-ask.sock"


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A short name for a socket's path, which may be longer than the 107 bytes that a Unix socket's name may have."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class LocalNudge:
    """Nudges the agent that listens in the state directory."""

    def __init__(self, state: Path) -> None:
        self._path = state / SOCKET_NAME

    def __call__(self, operation_ids: Sequence[int]) -> None:
        message = b" ".join(b"%d" % number for number in operation_ids)
        datagram = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        with suppress(OSError), reachable(self._path) as name, socket.socket(socket.AF_UNIX, datagram) as nudges:
            nudges.sendto(message, name)
