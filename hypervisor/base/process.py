"""Programs that outlive us: started detached, found again by pid and start time, ended in good order."""

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

# The shell notes its own pid and start time and then becomes the program: from the first moment on whoever looks finds
# it, whatever happens to us. `setsid --fork` makes it nobody's child, so that it never becomes a zombie of ours.
_BECOME = (
    "ulimit -c 0; read -r boot </proc/sys/kernel/random/boot_id && read -r stat </proc/$$/stat && "
    'printf "%s %s\\n" "$boot" "$stat" >"$1" && shift && exec "$@"'
)


@dataclass(frozen=True)
class Identity:
    """Who a program runs as: numbers only, no account is needed."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def command(self) -> list[str]:
        """The words before a command line that make it run as this identity, without any capability."""
        groups = ["--groups", ",".join(map(str, self.groups))] if self.groups else ["--clear-groups"]
        return [
            *("setpriv", "--reuid", str(self.uid), "--regid", str(self.gid), *groups),
            *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--"),
        ]


@dataclass(frozen=True)
class Process:
    """A running program. The start time (clock ticks since boot) tells it from a later one with the same pid."""

    pid: int
    started: int

    def is_alive(self) -> bool:
        stat = _stat(self.pid)
        return stat is not None and stat[1] == self.started and stat[0] not in "ZX"

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still is this program."""
        with contextlib.suppress(ProcessLookupError), _Handle(self) as handle:
            if handle is not None:
                signal.pidfd_send_signal(handle, number)

    def wait(self, timeout_seconds: float) -> bool:
        """True as soon as it is gone, False when it is not gone in time."""
        with _Handle(self) as handle:
            if handle is None:
                return True
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            return bool(poll.poll(max(0, timeout_seconds) * 1000))

    def children(self) -> list["Process"]:
        """What it has started itself."""
        try:
            pids = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return []
        found = [(int(pid), _stat(int(pid))) for pid in pids]
        return [Process(pid, stat[1]) for pid, stat in found if stat is not None]

    def end(self, *, patience_seconds: float = 3.0) -> None:
        """SIGTERM, then SIGKILL. Raises HypervisorError when even that does not help."""
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
    """Start a program detached, its output in `log`. It may not live long: ask `find` or the program itself."""
    words = ["setsid", "--fork", "sh", "-c", _BECOME, "sh", str(pid_file)]
    if identity is not None:
        words += identity.command()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(FileNotFoundError):
            pid_file.unlink()
        subprocess.run(
            [*words, *command],
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
    """The environment of a program that is not ours: without SIXSTACK_*, which may hold passwords."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def find(pid_file: Path) -> Process | None:
    """The program that a pid file speaks of, if it lives. A pid file of an earlier boot speaks of nobody."""
    try:
        boot, _, stat = pid_file.read_text().partition(" ")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.endswith("\n") or boot != boot_id():
        return None
    process = Process(pid=int(stat.split(" ", 1)[0]), started=_started(stat))
    return process if process.is_alive() else None


def wait_for_start(pid_file: Path, timeout_seconds: float) -> Process | None:
    """The same, with patience: a program just started needs a moment to write its pid."""
    deadline = time.monotonic() + timeout_seconds
    while (process := find(pid_file)) is None and time.monotonic() < deadline:
        time.sleep(0.005)
    return process


def boot_id() -> str:
    """Changes with every boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none."""
    stat = _stat(pid)
    return None if stat is None else stat[1]


def write_pid_file(pid_file: Path, process: Process) -> None:
    """Make `find` return a running program whose pid file was lost. Raises FileNotFoundError when it has ended."""
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    if _started(stat) != process.started:
        raise FileNotFoundError(f"/proc/{process.pid}/stat")
    write(pid_file, f"{boot_id()} {stat}".encode())


def log_tail(log: Path, limit: int = 1000) -> str:
    """The end of what a program said, for an error message."""
    try:
        return log.read_bytes()[-limit:].decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def _started(stat: str) -> int:
    return int(stat.rpartition(")")[2].split()[19])


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(")")[2].split()[0], _started(stat)


class _Handle(contextlib.AbstractContextManager["int | None"]):
    """A handle on a process that cannot come to mean another one; None when it is gone."""

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
