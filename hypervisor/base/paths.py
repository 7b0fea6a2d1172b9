"""File layout of a host, and atomic writes with private permissions."""

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

REMOVED = ".removed-"


@dataclass(frozen=True)
class MachinePaths:
    """The files of one machine. The directory is 0700: it holds user data, keys and the guest's disk."""

    directory: Path

    @property
    def spec(self) -> Path:
        return self.directory / "spec.json"

    @property
    def runtime_state(self) -> Path:
        """The runtime state of the current qemu process (`RuntimeState`)."""
        return self.directory / "run.json"

    @property
    def password(self) -> Path:
        """The password that the guest posted, encrypted with the user's key. Written once."""
        return self.directory / "password"

    @property
    def config_drive(self) -> Path:
        return self.directory / "config.iso"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def qmp(self) -> Path:
        return self.directory / "qmp.sock"

    @property
    def serial(self) -> Path:
        """The socket of the serial console."""
        return self.directory / "serial.sock"

    @property
    def pid(self) -> Path:
        return self.directory / "pid"

    @property
    def log(self) -> Path:
        return self.directory / "qemu.log"

    @property
    def memory(self) -> Path:
        """The saved memory of a suspended guest."""
        return self.directory / "memory"

    @property
    def owner(self) -> Path:
        """The name of the host that owns the machine, in a directory shared by all hosts."""
        return self.directory / "owner"

    @property
    def incoming(self) -> Path:
        """The plan id and the target of an incoming migration. Exists during the migration only."""
        return self.directory / "incoming.json"

    @property
    def outgoing(self) -> Path:
        """Marks an outgoing cold migration. Exists while disks are sent."""
        return self.directory / "outgoing"

    @property
    def key(self) -> Path:
        """The directory of the TLS-PSK of a migration."""
        return self.directory / "key"

    def snapshot(self, name: str) -> Path:
        """A point-in-time copy of the root disk."""
        return self.directory / f"snapshot-{name}"

    def disk(self, name: str) -> Path:
        return self.directory / f"{name}.qcow2"


@dataclass(frozen=True)
class HostPaths:
    """The files of one installation on this host.

    In a `shared` directory with the machines of all hosts, each machine has an owner file that names its host.
    """

    state: Path
    shared: Path | None = None
    host: str = ""

    @property
    def machines(self) -> Path:
        return self.shared or self.state / "machines"

    def owner(self, machine_id: str) -> str | None:
        """Return the name of the host that owns a machine; None when a shared directory does not contain it."""
        if self.shared is None:
            return self.host
        try:
            return self.machine(machine_id).owner.read_text()
        except FileNotFoundError:
            return None

    def is_owned(self, machine_id: str) -> bool:
        """Return whether this host owns a machine and so may modify it."""
        return self.owner(machine_id) == self.host

    def set_owner(self, machine_id: str, host: str | None) -> None:
        """Transfer the ownership of a machine in a shared directory to another host."""
        if self.shared is not None and host is not None:
            write(self.machine(machine_id).owner, host.encode())

    @property
    def bases(self) -> Path:
        """Base images by image id, the backing files of overlays."""
        return self.state / "bases"

    @property
    def radvd(self) -> Path:
        return self.state / "radvd"

    @property
    def accelerator(self) -> Path:
        """The stored result of the accelerator selection."""
        return self.state / "accelerator.json"

    def machine(self, machine_id: str) -> MachinePaths:
        if not machine_id or "/" in machine_id or machine_id.startswith("."):
            raise ValueError(f"not the id of a machine: {machine_id!r}")
        return MachinePaths(self.machines / machine_id)

    def machine_ids(self) -> list[str]:
        """List the ids of machines with a directory that this host owns."""
        try:
            names = [name for name in os.listdir(self.machines) if not name.startswith(".")]
            return sorted(name for name in names if self.is_owned(name))
        except FileNotFoundError:
            return []


def private_directory(path: Path) -> None:
    """Ensure that a directory exists with mode 0700."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file atomically: readers see the old or the new content, also after a crash of the process."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def remove_directory(path: Path) -> None:
    """Remove a directory: rename it atomically, then delete it. `finish_removals` completes it after a crash."""
    hidden = path.with_name(f"{REMOVED}{path.name}")
    if hidden.exists():
        shutil.rmtree(hidden, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, hidden)
        shutil.rmtree(hidden)


def finish_removals(directory: Path) -> None:
    """Complete interrupted removals in a directory."""
    for hidden in directory.glob(f"{REMOVED}*"):
        shutil.rmtree(hidden, ignore_errors=True)
