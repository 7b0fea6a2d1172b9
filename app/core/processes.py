"""Processes of ours: ended with their parent, found again by pid file, never mistaken for others', known to systemd."""

import ctypes
import os
import signal
import socket
from pathlib import Path

PR_SET_PDEATHSIG = 1
NOTIFY_SOCKET = "NOTIFY_SOCKET"


def end_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends, however that ends (prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def start_time(pid: int) -> str | None:
    """When the process started, in clock ticks since boot; None when there is none. Pid and start name a process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def write_pid_file(path: Path) -> None:
    """Say who we are."""
    path.write_text(f"{os.getpid()} {start_time(os.getpid())}\n")


def read_pid_file(path: Path) -> int | None:
    """The process that wrote the file, if it still runs."""
    try:
        pid, start = path.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if start_time(int(pid)) == start else None


def notify_systemd(state: str) -> None:
    """Say `state`, such as READY=1, to systemd when it has started us and wants to know (sd_notify(3))."""
    if address := os.environ.get(NOTIFY_SOCKET):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
