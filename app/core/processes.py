"""Process management: parent-death signal, pid files that detect reused pids, notification of systemd."""

import ctypes
import os
import signal
import socket
from pathlib import Path

PR_SET_PDEATHSIG = 1
NOTIFY_SOCKET = "NOTIFY_SOCKET"


def end_with_parent() -> None:
    """Send SIGTERM to this process when its parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def start_time(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot; None when it does not exist or is a zombie.

    Pid and start time together identify a process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def write_pid_file(path: Path) -> None:
    """Write the pid and start time of this process."""
    path.write_text(f"{os.getpid()} {start_time(os.getpid())}\n")


def read_pid_file(path: Path) -> int | None:
    """Return the pid of the process that wrote the file; None when it no longer runs."""
    try:
        pid, start = path.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if start_time(int(pid)) == start else None


def notify_systemd(state: str) -> None:
    """Send `state`, such as READY=1, to systemd if NOTIFY_SOCKET is set (sd_notify(3))."""
    if address := os.environ.get(NOTIFY_SOCKET):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
