"""Discovers the qemu processes of one host by command line and open files, for when a pid file is lost.

A process belongs to this host when all of these hold:

- its command line names this installation and a machine (`-name guest=INSTALLATION-ID` and `-uuid ID`);
- it runs as that machine's uid, or as the agent's before it executes qemu;
- it has an open file under the machine's directory, deleted or not.

Processes of other installations, of other hosts of this installation on the same computer, and of other programs are
never matched.
"""

import contextlib
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hypervisor.base import process
from hypervisor.base.paths import REMOVED, HostPaths, MachinePaths
from hypervisor.base.process import Process
from hypervisor.machines.launch import machine_identity

PROC = Path("/proc")


@dataclass(frozen=True)
class MachineProcess:
    """The qemu process of a machine, or its launcher before it executes qemu."""

    machine_id: str
    process: Process

    def writes_console_of(self, paths: MachinePaths) -> bool:
        """Whether the process has the present console log of the machine open, not a deleted one."""
        return any(_is_same_file(link, paths.console) for link in _descriptors(self.process.pid))


def find_machine_processes(installation: str, paths: HostPaths, machine_id: str | None = None) -> list[MachineProcess]:
    """Return the qemu processes of this host, or of one machine, without reading pid files."""
    label = f"guest={installation}-{machine_id or ''}".encode()
    found = []
    for entry in os.scandir(PROC):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        with contextlib.suppress(OSError):  # the process has ended
            if label not in Path(entry.path, "cmdline").read_bytes():
                continue
            started = process.start_time(
                pid
            )  # read before the checks and compared after them, in case the pid is reused
            one = _machine_id(Path(entry.path, "cmdline").read_bytes(), installation)
            if one is None or started is None or not _is_ours(pid, installation, one, paths):
                continue
            found.append(MachineProcess(one, Process(pid, started)))
    return [one for one in found if one.process.is_alive()]


def _machine_id(command: bytes, installation: str) -> str | None:
    words = command.decode(errors="replace").split("\0")
    pairs = dict(pairwise(words))
    machine_id = pairs.get("-uuid")
    return machine_id if machine_id and pairs.get("-name") == f"guest={installation}-{machine_id}" else None


def _is_ours(pid: int, installation: str, machine_id: str, paths: HostPaths) -> bool:
    status = (PROC / str(pid) / "status").read_text()
    uids = {int(uid) for uid in status.partition("\nUid:")[2].partition("\n")[0].split()}
    if not uids <= {os.geteuid(), machine_identity(installation, machine_id).uid}:
        return False
    if paths.shared is not None and not _is_in_our_network_namespace(pid):
        return False
    machines = os.path.realpath(paths.machines)
    places = tuple(f"{machines}/{name}/" for name in (machine_id, f"{REMOVED}{machine_id}"))
    return any(_target(link).startswith(places) for link in _descriptors(pid))


def _is_in_our_network_namespace(pid: int) -> bool:
    """Distinguish hosts on one computer that share a directory: they differ in their network namespaces only."""
    return os.path.samefile(PROC / str(pid) / "ns/net", PROC / "thread-self/ns/net")


def _descriptors(pid: int) -> list[Path]:
    with contextlib.suppress(OSError):
        return list((PROC / str(pid) / "fd").iterdir())
    return []


def _target(link: Path) -> str:
    with contextlib.suppress(OSError):  # the descriptor has been closed
        return os.readlink(link)
    return ""


def _is_same_file(link: Path, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(link, path)
    return False
