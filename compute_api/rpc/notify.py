"""Notifications of queued operations: a Unix datagram with operation ids to the agent on this machine.

A notification may be lost: the agent also polls once a second.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SOCKET_NAME = "agent.sock"
RPC_SOCKET_NAME = "agent-ask.sock"


@contextmanager
def short_socket_path(path: Path) -> Iterator[str]:
    """Yield a short name for a socket's path, which may exceed the 107 bytes that a Unix socket address holds."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class Notifier:
    """Notifies the local agent (Unix socket) or a remote one (broker)."""

    def __init__(self, here: str | None, local: "LocalNotifier", remote: Callable[[str, Sequence[int]], None] | None):
        self._here, self._local, self._remote = here, local, remote

    def __call__(self, host: str, operation_ids: Sequence[int]) -> None:
        if host == self._here or self._remote is None:
            self._local(operation_ids)
        else:
            self._remote(host, operation_ids)


class LocalNotifier:
    """Sends datagrams to the agent's socket in the state directory."""

    def __init__(self, state: Path) -> None:
        self._path = state / SOCKET_NAME

    def __call__(self, operation_ids: Sequence[int]) -> None:
        message = b" ".join(b"%d" % number for number in operation_ids)
        datagram = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        with (
            suppress(OSError),
            short_socket_path(self._path) as name,
            socket.socket(socket.AF_UNIX, datagram) as sender,
        ):
            sender.sendto(message, name)
