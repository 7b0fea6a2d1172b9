"""Launch of a machine's qemu as an unprivileged user that inherits every file as an open descriptor."""

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
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


def start_qemu(
    spec: MachineSpec,
    paths: MachinePaths,
    disks: list[DiskFile],
    links: Links,
    *,
    accelerator: str,
    program: str,
    slots: Mapping[str, int],
    memory: Path | None = None,
    machine: str = "q35",
    processor: str = "",
    generation_id: str = "auto",
    key_directory: Path | None = None,
    frozen: bool = False,
    consoles: bool = False,
) -> None:
    """Start the machine's qemu, detached, and wait until it says that the guest runs, which goes on where it was
    suspended if there is its `memory`. With a `key_directory` it awaits a guest from another host; a `frozen` one only
    has its disks open. One with `consoles` has a screen and lets others take part in its serial console. Raises
    LaunchFailed; then qemu is gone again."""
    identity = machine_identity(links.installation, spec.id, kvm_groups() if accelerator == "kvm" else ())
    with ExitStack() as mine:  # qemu inherits copies of these descriptors
        listener = mine.enter_context(contextlib.closing(qmp.listen(paths.qmp)))
        serial = mine.enter_context(contextlib.closing(qmp.listen(paths.serial))) if consoles else None
        files = OpenFiles(
            qmp=listener.fileno(),
            console=_open(mine, paths.console, os.O_WRONLY | os.O_APPEND | os.O_CREAT),
            disks=tuple(_open_disk(mine, disk) for disk in disks),
            nics=tuple(_open_nic(mine, links, nic, identity.uid, slots[nic.port_id]) for nic in spec.nics),
            memory=None if memory is None else _open(mine, memory, os.O_RDONLY),
            key=None if key_directory is None else _open(mine, key_directory, os.O_RDONLY | os.O_DIRECTORY),
            serial=None if serial is None else serial.fileno(),
        )
        command = qemu_command(
            spec,
            files,
            accelerator=accelerator,
            program=program,
            label=f"{links.installation}-",
            machine=machine,
            processor=processor,
            generation_id=generation_id,
            frozen=frozen,
        )
        try:
            process.start(command, pid_file=paths.pid, log=paths.log, identity=identity, inherit=files.descriptors())
        except BaseException:
            _end_process(paths)
            raise
    try:
        if memory is not None:
            suspend.resume(paths.qmp)
        state, word = _wait_for_state(paths)
        wanted = MachineState.RUNNING if key_directory is None and not frozen else MachineState.PAUSED
        if word == INTERNAL_ERROR and accelerator == "kvm":
            raise AcceleratorFailed("The guest failed under KVM: internal-error.")
        if state is not wanted:
            raise LaunchFailed(f"The guest did not start, qemu reports {word}.")
        if not frozen:
            _apply_limits(spec, paths, disks)
    except HypervisorError as error:
        _end_process(paths)
        words = process.log_tail(paths.log)
        log.error("machine %s does not start: %s; qemu log: %s", spec.id, error, words)
        is_about_kvm = isinstance(error, AcceleratorFailed) or (accelerator == "kvm" and "kvm" in words.lower())
        raise (AcceleratorFailed if is_about_kvm else LaunchFailed)(f"qemu did not start: {error}") from error
    except BaseException:
        _end_process(paths)
        raise


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
