"""Which process writes: its host, its number, and when it began, so that a dead one is not taken for another."""

import os
import socket

from app.core.processes import start_time


def current() -> str:
    """This process."""
    return f"{socket.gethostname()} {os.getpid()} {start_time(os.getpid())}"


def is_gone(writer: str | None, host: str | None = None) -> bool:
    """Whether it was a process of this host that has ended. Of other hosts one cannot tell: False."""
    try:
        name, pid, start = (writer or "").split()
    except ValueError:
        return True
    return name == (host or socket.gethostname()) and start_time(int(pid)) != start
