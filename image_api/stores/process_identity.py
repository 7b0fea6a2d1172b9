"""Process identity for claims: hostname, pid and start time, so that a reused pid does not match."""

import os
import socket

from app.core.processes import start_time


def current() -> str:
    """Return the identity of this process."""
    return f"{socket.gethostname()} {os.getpid()} {start_time(os.getpid())}"


def is_gone(writer: str | None, host: str | None = None) -> bool:
    """Return whether the process has ended. False for processes of other hosts, whose state is unknown."""
    try:
        name, pid, start = (writer or "").split()
    except ValueError:
        return True
    return name == (host or socket.gethostname()) and start_time(int(pid)) != start
