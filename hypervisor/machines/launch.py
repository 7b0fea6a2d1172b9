"""Launch of a machine's qemu as an unprivileged user that inherits every file as an open descriptor."""

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hypervisor.api.errors import AcceleratorFailed, HypervisorError, LaunchFailed
from hypervisor.api.spec import MachineSpec, MachineState, NicSpec
from hypervisor.base import process
from hypervisor.base.paths import MachinePaths
from hypervisor.base.process import Identity
from hypervisor.machines import limits, suspend
from hypervisor.network.links import Links
from hypervisor.qemu import qmp
from hypervisor.qemu.accelerator import kvm_groups
from hypervisor.qemu.command import OpenDisk, OpenFiles, OpenNic, qemu_command
from hypervisor.storage.disks import DiskFile

log = logging.getLogger(__name__)

# Above the uid ranges of systemd and containers, below 2**31: no account and no container uses these uids.
FIRST_UID = 0x7000_0000
UIDS = 0x0F00_0000
LAUNCH_SECONDS = 30.0
RETRY_SECONDS = 0.2
INTERNAL_ERROR = "internal-error"


@dataclass(frozen=True)
class QemuLaunch:
    """Everything that one start of a machine's qemu depends on.

    `program` is the qemu binary, `slots` maps ports to PCIe slots, `memory` is the saved memory of a suspended guest.
    With a `key_directory` qemu waits for an incoming migration; a `frozen` one only opens the disks. `consoles` adds a
    screen and a serial console for clients.
    """

    spec: MachineSpec
    paths: MachinePaths
    disks: list[DiskFile]
    accelerator: str
    program: str
    slots: Mapping[str, int]
    memory: Path | None = None
    machine_type: str = "q35"
    processor: str = ""
    generation_id: str = "auto"
    key_directory: Path | None = None
    frozen: bool = False
    consoles: bool = False

    def command(self, files: OpenFiles, label: str) -> list[str]:
        """Return the command line of qemu; `label` precedes the machine id in the guest's name."""
        return qemu_command(
            self.spec,
            files,
            accelerator=self.accelerator,
            program=self.program,
            label=label,
            machine=self.machine_type,
            processor=self.processor,
            generation_id=self.generation_id,
            frozen=self.frozen,
        )

    def expected_state(self) -> MachineState:
        return MachineState.RUNNING if self.key_directory is None and not self.frozen else MachineState.PAUSED


def start_qemu(launch: QemuLaunch, links: Links) -> None:
    """Start a detached qemu and wait until it reports the expected state.

    Raises LaunchFailed, or AcceleratorFailed when KVM is the likely cause; qemu is then terminated.
    """
    spec, paths = launch.spec, launch.paths
    identity = machine_identity(links.installation, spec.id, kvm_groups() if launch.accelerator == "kvm" else ())
    with _open_files(launch, links, identity) as files:  # qemu inherits copies of these descriptors
        command = launch.command(files, f"{links.installation}-")
        try:
            process.start(command, pid_file=paths.pid, log=paths.log, identity=identity, inherit=files.descriptors())
        except BaseException:
            _end_process(paths)
            raise
    try:
        if launch.memory is not None:
            suspend.resume(paths.qmp)
        state, word = _wait_for_state(paths)
        if word == INTERNAL_ERROR and launch.accelerator == "kvm":
            raise AcceleratorFailed("The guest failed under KVM: internal-error.")
        if state is not launch.expected_state():
            raise LaunchFailed(f"The guest did not start, qemu reports {word}.")
        if not launch.frozen:
            _apply_limits(spec, paths, launch.disks)
    except HypervisorError as error:
        _end_process(paths)
        words = process.log_tail(paths.log)
        log.error("machine %s does not start: %s; qemu log: %s", spec.id, error, words)
        is_about_kvm = isinstance(error, AcceleratorFailed) or (launch.accelerator == "kvm" and "kvm" in words.lower())
        raise (AcceleratorFailed if is_about_kvm else LaunchFailed)(f"qemu did not start: {error}") from error
    except BaseException:
        _end_process(paths)
        raise


@contextlib.contextmanager
def _open_files(launch: QemuLaunch, links: Links, identity: Identity) -> Iterator[OpenFiles]:
    """Open the machine's files, sockets and taps for qemu; close them at the end of the block."""
    paths, key_directory = launch.paths, launch.key_directory
    with ExitStack() as mine:
        listener = mine.enter_context(contextlib.closing(qmp.listen(paths.qmp)))
        serial = mine.enter_context(contextlib.closing(qmp.listen(paths.serial))) if launch.consoles else None
        nics = [_open_nic(mine, links, nic, identity.uid, launch.slots[nic.port_id]) for nic in launch.spec.nics]
        yield OpenFiles(
            qmp=listener.fileno(),
            console=_open(mine, paths.console, os.O_WRONLY | os.O_APPEND | os.O_CREAT),
            disks=tuple(_open_disk(mine, disk) for disk in launch.disks),
            nics=tuple(nics),
            memory=None if launch.memory is None else _open(mine, launch.memory, os.O_RDONLY),
            key=None if key_directory is None else _open(mine, key_directory, os.O_RDONLY | os.O_DIRECTORY),
            serial=None if serial is None else serial.fileno(),
        )


def _wait_for_state(paths: MachinePaths) -> tuple[MachineState, str]:
    """Return the first state that a new qemu reports. Raises HypervisorError when it ends, or after LAUNCH_SECONDS."""
    deadline = time.monotonic() + LAUNCH_SECONDS
    while True:
        try:
            return qmp.query_state(paths.qmp, timeout_seconds=max(0.1, deadline - time.monotonic()))
        except qmp.QmpUnavailable:
            running = process.wait_for_start(paths.pid, 0.5)
            if running is None or running.wait(RETRY_SECONDS) or time.monotonic() > deadline:
                raise


def _end_process(paths: MachinePaths) -> None:
    """End a qemu that was just started, if it exists."""
    running = process.wait_for_start(paths.pid, 0.5)
    if running is not None:
        running.end()
    limits.remove_cgroup(cgroup_name(paths))


def _apply_limits(spec: MachineSpec, paths: MachinePaths, disks: list[DiskFile]) -> None:
    if spec.disk_limits is not None:
        numbers = [number for number, disk in enumerate(disks) if disk.name != "config" and not disk.cdrom]
        limits.throttle_disks(paths.qmp, numbers, spec.disk_limits)
    if spec.cpu_limits is not None:
        running = process.wait_for_start(paths.pid, 0.5)
        if running is None:
            raise LaunchFailed("qemu exited during its start.")
        limits.limit_cpu(cgroup_name(paths), running.pid, spec.cpu_limits, spec.vcpus)


def cgroup_name(paths: MachinePaths) -> str:
    """Name of the control group of a machine with CPU limits."""
    return f"sixstack-{paths.directory.name}"


def _open_nic(mine: ExitStack, links: Links, nic: NicSpec, owner: int, slot: int) -> OpenNic:
    tap = links.open_tap(nic, owner)
    mine.callback(os.close, tap)
    return OpenNic(nic, tap, slot)


def machine_identity(installation: str, machine_id: str, groups: tuple[int, ...] = ()) -> Identity:
    """Return the user that a machine's qemu runs as.

    Each machine has its own uid, derived from its id: a guest that escapes its qemu can neither signal nor trace
    another qemu, as it could under a shared account. No account has to be created or removed.
    """
    digest = hashlib.sha256(f"{installation}/{machine_id}".encode()).digest()
    number = FIRST_UID + int.from_bytes(digest[:8], "big") % UIDS
    return Identity(number, number, groups)


def _open(mine: ExitStack, path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    mine.callback(os.close, descriptor)
    return descriptor


def _open_disk(mine: ExitStack, disk: DiskFile) -> OpenDisk:
    return OpenDisk(
        name=disk.name,
        descriptor=_open(mine, disk.path, os.O_RDONLY if disk.read_only else os.O_RDWR),
        format=disk.format,
        base=None if disk.base is None else _open(mine, disk.base, os.O_RDONLY),
        base_format=disk.base_format,
        read_only=disk.read_only,
        cdrom=disk.cdrom,
    )
