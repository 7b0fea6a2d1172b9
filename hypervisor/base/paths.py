"""Every file name on a host, and how files there are written: whole or not at all, and for their owner only."""

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
        """What is true of this run only: accelerator and time of start."""
        return self.directory / "run.json"

    @property
    def password(self) -> Path:
        """What the guest has posted as its password, encrypted with the user's key. Written once."""
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
        """Where clients of the serial console come."""
        return self.directory / "serial.sock"

    @property
    def pid(self) -> Path:
        return self.directory / "pid"

    @property
    def log(self) -> Path:
        return self.directory / "qemu.log"

    @property
    def memory(self) -> Path:
        """The memory of a suspended guest."""
        return self.directory / "memory"

    @property
    def owner(self) -> Path:
        """Which host the machine belongs to, where all hosts share one directory."""
        return self.directory / "owner"

    @property
    def incoming(self) -> Path:
        """There while a guest is awaited from another host: where, and by whom."""
        return self.directory / "incoming.json"

    @property
    def outgoing(self) -> Path:
        """There while the disks of a machine that does not run are sent to another host."""
        return self.directory / "outgoing"

    @property
    def key(self) -> Path:
        """The directory with the key of a migration."""
        return self.directory / "key"

    def snapshot(self, name: str) -> Path:
        """A disk as it was at one moment."""
        return self.directory / f"snapshot-{name}"

    def disk(self, name: str) -> Path:
        return self.directory / f"{name}.qcow2"


@dataclass(frozen=True)
class HostPaths:
    """The files of one installation on this host.

    Where all hosts have their machines in one `shared` directory, each machine says which `host` it belongs to.
    """

    state: Path
    shared: Path | None = None
    host: str = ""

    @property
    def machines(self) -> Path:
        return self.shared or self.state / "machines"

    def owner(self, machine_id: str) -> str | None:
        """The host that a machine belongs to; None for one that is not there."""
        if self.shared is None:
            return self.host
        try:
            return self.machine(machine_id).owner.read_text()
        except FileNotFoundError:
            return None

    def is_owned(self, machine_id: str) -> bool:
        """Whether a machine may be touched here."""
        return self.owner(machine_id) == self.host

    def set_owner(self, machine_id: str, host: str | None) -> None:
        """From now on the machine belongs to that host."""
        if self.shared is not None and host is not None:
            write(self.machine(machine_id).owner, host.encode())

    @property
    def bases(self) -> Path:
        """Base images, by image id; overlays stand on them."""
        return self.state / "bases"

    @property
    def radvd(self) -> Path:
        return self.state / "radvd"

    @property
    def accelerator(self) -> Path:
        """What was found out about KVM."""
        return self.state / "accelerator.json"

    def machine(self, machine_id: str) -> MachinePaths:
        if not machine_id or "/" in machine_id or machine_id.startswith("."):
            raise ValueError(f"not the id of a machine: {machine_id!r}")
        return MachinePaths(self.machines / machine_id)

    def machine_ids(self) -> list[str]:
        """Ids of all machines of this host that have a directory here."""
        try:
            names = [name for name in os.listdir(self.machines) if not name.startswith(".")]
            return sorted(name for name in names if self.is_owned(name))
        except FileNotFoundError:
            return []


def private_directory(path: Path) -> None:
    """Ensure a directory that only its owner may look into."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file in one step, so that a reader or a crash never meets half of it."""
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
    """Remove a directory; it is out of sight at once, and `remove_remains` finishes what a crash left."""
    hidden = path.with_name(f"{REMOVED}{path.name}")
    if hidden.exists():
        shutil.rmtree(hidden, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, hidden)
        shutil.rmtree(hidden)


def finish_removals(directory: Path) -> None:
    """Finish the removals under `directory` that were cut short."""
    for remains in directory.glob(f"{REMOVED}*"):
        shutil.rmtree(remains, ignore_errors=True)
