"""Detached processes that survive restarts of the agent, identified by pid and start time."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypervisor.api.errors import HostUnfit, HypervisorError
from hypervisor.base.paths import write

# The shell writes its own pid and start time and then execs the program, so that the pid file exists before the program
# runs, even when this process crashes. `setsid --fork` reparents the program to init, which reaps it.
_WRITE_PID_AND_EXEC = (
    "ulimit -c 0; read -r boot </proc/sys/kernel/random/boot_id && read -r stat </proc/$$/stat && "
    'printf "%s %s\\n" "$boot" "$stat" >"$1" && shift && exec "$@"'
)


@dataclass(frozen=True)
class Identity:
    """The uid and gids of a program. No entry in /etc/passwd is required."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def command(self) -> list[str]:
        """Return the command prefix (setpriv) that switches to this identity and drops all capabilities."""
        groups = ["--groups", ",".join(map(str, self.groups))] if self.groups else ["--clear-groups"]
        return [
            *("setpriv", "--reuid", str(self.uid), "--regid", str(self.gid), *groups),
            *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--"),
        ]


@dataclass(frozen=True)
class Process:
    """A process, identified by pid and start time (clock ticks since boot) to detect reuse of the pid."""

    pid: int
    started: int

    def is_alive(self) -> bool:
        stat = _read_stat(self.pid)
        return stat is not None and stat[1] == self.started and stat[0] not in "ZX"

    def send(self, number: signal.Signals) -> None:
        """Send a signal; do nothing when the process has ended."""
        with contextlib.suppress(ProcessLookupError), _PidFd(self) as pidfd:
            if pidfd is not None:
                signal.pidfd_send_signal(pidfd, number)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for the process to end. Returns False at the timeout."""
        with _PidFd(self) as pidfd:
            if pidfd is None:
                return True
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            return bool(poll.poll(max(0, timeout_seconds) * 1000))

    def children(self) -> list["Process"]:
        """List the direct child processes."""
        try:
            pids = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return []
        stats = [(int(pid), _read_stat(int(pid))) for pid in pids]
        return [Process(pid, stat[1]) for pid, stat in stats if stat is not None]

    def end(self, *, patience_seconds: float = 3.0) -> None:
        """Send SIGTERM, and SIGKILL after `patience_seconds`. Raises HypervisorError if the process survives both."""
        self.send(signal.SIGTERM)
        if not self.wait(patience_seconds):
            self.send(signal.SIGKILL)
            if not self.wait(10):
                raise HypervisorError(f"Process {self.pid} does not end; the host's storage may be stuck.")


def start(
    command: Sequence[str],
    *,
    pid_file: Path,
    log: Path,
    identity: Identity | None = None,
    inherit: Sequence[int] = (),
) -> None:
    """Start a detached program with its output in `log`. Does not verify that it keeps running; see `find`."""
    prefix = ["setsid", "--fork", "sh", "-c", _WRITE_PID_AND_EXEC, "sh", str(pid_file)]
    if identity is not None:
        prefix += identity.command()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(FileNotFoundError):
            pid_file.unlink()
        subprocess.run(
            [*prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=tuple(inherit),
            cwd="/",
            umask=0o077,
            env=clean_environment(),
            check=True,
            timeout=30,
        )
    except FileNotFoundError:
        raise HostUnfit("setsid is missing: apt install util-linux") from None
    except subprocess.SubprocessError as error:
        raise HypervisorError(f"{command[0]} cannot be started: {error}") from error
    finally:
        os.close(output)


def clean_environment() -> dict[str, str]:
    """Return the environment of external programs: without SIXSTACK_*, which may contain passwords."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def find(pid_file: Path) -> Process | None:
    """Return the running process of a pid file; None when it has ended or the file is from an earlier boot."""
    try:
        boot, _, stat = pid_file.read_text().partition(" ")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.endswith("\n") or boot != boot_id():
        return None
    process = Process(pid=int(stat.split(" ", 1)[0]), started=_parse_start_time(stat))
    return process if process.is_alive() else None


def wait_for_start(pid_file: Path, timeout_seconds: float) -> Process | None:
    """Poll `find` until the process runs or the timeout expires. A starting program writes its pid with a delay."""
    deadline = time.monotonic() + timeout_seconds
    while (process := find(pid_file)) is None and time.monotonic() < deadline:
        time.sleep(0.005)
    return process


def boot_id() -> str:
    """Return the kernel's boot id, unique to each boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot; None when it does not exist."""
    stat = _read_stat(pid)
    return None if stat is None else stat[1]


def write_pid_file(pid_file: Path, process: Process) -> None:
    """Recreate the lost pid file of a running process for `find`. Raises FileNotFoundError when it has ended."""
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    if _parse_start_time(stat) != process.started:
        raise FileNotFoundError(f"/proc/{process.pid}/stat")
    write(pid_file, f"{boot_id()} {stat}".encode())


def log_tail(log: Path, limit: int = 1000) -> str:
    """Return the last bytes of a log file for an error message; empty when there is none."""
    try:
        return log.read_bytes()[-limit:].decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def _parse_start_time(stat: str) -> int:
    return int(stat.rpartition(")")[2].split()[19])


def _read_stat(pid: int) -> tuple[str, int] | None:
    """Return the state letter and the start time of a process (proc(5)); None when it does not exist."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(")")[2].split()[0], _parse_start_time(stat)


class _PidFd(contextlib.AbstractContextManager["int | None"]):
    """A pidfd, which is immune to reuse of the pid; None when the process has ended."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.descriptor: int | None = None

    def __enter__(self) -> int | None:
        try:
            descriptor = os.pidfd_open(self.process.pid)
        except ProcessLookupError:
            return None
        if not self.process.is_alive():
            os.close(descriptor)
            return None
        self.descriptor = descriptor
        return descriptor

    def __exit__(self, *_: object) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
