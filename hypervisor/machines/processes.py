"""Finds the qemu processes of one host by command line and open files: what remains when a pid file is lost.

A process counts as one of ours when all of these hold:

- its command line names this installation and a machine (`-name guest=INSTALLATION-ID` and `-uuid ID`);
- it runs as that machine's uid, or still as the agent's, before it becomes qemu;
- it has a file open under the machine's directory, deleted or not.

So processes of other installations, of other hosts of this installation on the same computer, and of other programs are
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
    """A process that is, or is about to become, the qemu of a machine."""

    machine_id: str
    process: Process

    def writes_console_of(self, paths: MachinePaths) -> bool:
        """Whether its files are those in the machine's directory, not ones that were removed meanwhile."""
        return any(_is_same_file(link, paths.console) for link in _descriptors(self.process.pid))


def find_machine_processes(installation: str, paths: HostPaths, machine_id: str | None = None) -> list[MachineProcess]:
    """The qemu processes of this host, or of one of its machines, whatever its files say."""
    label = f"guest={installation}-{machine_id or ''}".encode()
    found = []
    for entry in os.scandir(PROC):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if label not in Path(entry.path, "cmdline").read_bytes():
                continue
            started = process.start_time(pid)  # read before all that is checked, and compared after it
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
    """Hosts that share a directory differ in nothing else, if they are on one computer."""
    return os.path.samefile(PROC / str(pid) / "ns/net", PROC / "thread-self/ns/net")


def _descriptors(pid: int) -> list[Path]:
    with contextlib.suppress(OSError):
        return list((PROC / str(pid) / "fd").iterdir())
    return []


def _target(link: Path) -> str:
    with contextlib.suppress(OSError):  # it was closed meanwhile
        return os.readlink(link)
    return ""


def _is_same_file(link: Path, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(link, path)
    return False
