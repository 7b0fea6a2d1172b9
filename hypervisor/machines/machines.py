"""Lifecycle of the machines of a host: locks, launch, shutdown, state reports and repair of qemu processes."""

import contextlib
import logging
import os
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from hypervisor.api.errors import AcceleratorFailed, HypervisorError, LaunchFailed
from hypervisor.api.spec import MachineReport, MachineSpec, MachineState
from hypervisor.base import host_facts, process
from hypervisor.base.config import HostConfig
from hypervisor.base.paths import HostPaths, MachinePaths, private_directory, remove_directory, write
from hypervisor.base.process import Process
from hypervisor.base.runtime_state import RuntimeState, load_runtime_state
from hypervisor.guest_data.config_drive import config_drive
from hypervisor.machines import hotplug, limits
from hypervisor.machines.console_log import trim_console
from hypervisor.machines.launch import INTERNAL_ERROR, QemuLaunch, cgroup_name, start_qemu
from hypervisor.machines.locks import MachineLocks
from hypervisor.machines.processes import MachineProcess, find_machine_processes
from hypervisor.network.links import Links
from hypervisor.network.segments import Segments
from hypervisor.qemu import qmp
from hypervisor.qemu.accelerator import AcceleratorSelector
from hypervisor.storage.disks import DiskFile, Disks

log = logging.getLogger(__name__)

# A guest that KVM cannot run crashes in its boot loader or early kernel.
KVM_TRIAL_SECONDS = 120.0
# Free disk space required before a guest paused by ENOSPC is resumed.
RESUME_MIB = 16
# Pause between two presses of a guest's power button.
POWER_BUTTON_SECONDS = 2.0


class Machines:
    """Operations on machines for `QemuHypervisor` and `MigrationDriver`. Callers hold a machine's lock to change it."""

    def __init__(self, config: HostConfig, paths: HostPaths, links: Links, segments: Segments, disks: Disks) -> None:
        self.config = config
        self.paths = paths
        self.links = links
        self.segments = segments
        self.disks = disks
        self.accelerators = AcceleratorSelector(config.accelerator, paths.accelerator, config.qemu)
        self.locks = MachineLocks(paths)
        self._images: dict[str, frozenset[str]] = {}
        self._machine_type: str | None = None
        self._without_space: set[str] = set()
        for machine_id in paths.machine_ids():
            spec = self.spec(machine_id)
            if spec is not None:
                self.use_images(spec)
                machine = paths.machine(machine_id)
                moving = any(path.exists() for path in (machine.incoming, machine.outgoing, machine.key))
                segments.register(machine_id, spec.nics, is_migrating=moving)

    def process_of(self, paths: MachinePaths) -> Process | None:
        """Return the machine's qemu, or None. A QMP socket that accepts without a pid file: qemu is starting."""
        running = process.find(paths.pid)
        if running is None and paths.qmp.exists() and qmp.is_listening(paths.qmp):
            running = process.wait_for_start(paths.pid, 2)
        return running

    def end_processes(self, machine_id: str, paths: MachinePaths) -> None:
        """End every qemu of the machine, also without a pid file. Raises HypervisorError when one remains."""
        running = process.find(paths.pid)
        if running is not None:
            # On SIGTERM qemu flushes its caches and exits.
            running.end()
        for one in find_machine_processes(self.config.installation, self.paths, machine_id):
            one.process.end()

    def repair_processes(self) -> None:
        """Reconcile the qemu processes of this host with the files of its machines.

        A process that uses the files of its machine gets its pid file back; any other process without a pid file is
        an orphan and is ended. Locked machines are skipped until the next call.
        """
        found = find_machine_processes(self.config.installation, self.paths)
        for machine_id in sorted({one.machine_id for one in found if not self._is_named_by_pid_file(one)}):
            with self.locks.try_hold(machine_id) as paths:
                if paths is not None:
                    self._repair_processes_of(machine_id, paths)

    def _repair_processes_of(self, machine_id: str, paths: MachinePaths) -> None:
        for one in find_machine_processes(self.config.installation, self.paths, machine_id):
            if self._is_named_by_pid_file(one):
                continue
            is_known = paths.spec.exists() and self.paths.is_owned(machine_id)
            if is_known and process.find(paths.pid) is None and one.writes_console_of(paths):
                log.warning("machine %s: process %d had no pid file; restored", machine_id, one.process.pid)
                with contextlib.suppress(FileNotFoundError):  # the process has ended
                    process.write_pid_file(paths.pid, one.process)
                continue
            log.error(
                "machine %s: process %d belongs to no machine of this host; terminating", machine_id, one.process.pid
            )
            one.process.end()

    def _is_named_by_pid_file(self, one: MachineProcess) -> bool:
        return process.find(self.paths.machine(one.machine_id).pid) == one.process

    def find_process(self, machine_id: str, paths: MachinePaths) -> Process:
        """Return the machine's qemu. Raises HypervisorError when the machine does not run."""
        running = self.process_of(paths)
        if running is None:
            raise HypervisorError(f"Machine {machine_id} does not run.")
        return running

    def spec(self, machine_id: str) -> MachineSpec | None:
        """Return the stored spec of the machine, or None."""
        path = self.paths.machine(machine_id).spec
        try:
            return MachineSpec.from_file(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            log.exception("%s is not a valid machine spec", path)
            return None

    def find_spec(self, machine_id: str) -> MachineSpec:
        """Return the stored spec. Raises HypervisorError when the machine is not here."""
        known = self.spec(machine_id)
        if known is None:
            raise HypervisorError(f"Machine {machine_id} is not here.")
        return known

    def runs_generation(self, spec: MachineSpec, paths: MachinePaths) -> bool:
        """Whether the machine runs with the generation of this spec."""
        known = self.spec(spec.id)
        return known is not None and known.generation == spec.generation and self.process_of(paths) is not None

    def report(self, machine_id: str, paths: MachinePaths) -> MachineReport:
        """Report the state of a machine without its lock, so that long operations do not block reports."""
        if not paths.directory.is_dir() or not self.paths.is_owned(machine_id):
            return MachineReport(id=machine_id, state=MachineState.ABSENT)
        trim_console(paths.console)
        if self.process_of(paths) is None:
            return MachineReport(id=machine_id, state=MachineState.SHUTOFF)
        run = load_runtime_state(paths)
        try:
            state, word = qmp.query_state(paths.qmp)
            self._without_space.discard(machine_id)
            if state is MachineState.NO_SPACE:
                self._without_space.add(machine_id)
            if word == INTERNAL_ERROR and self._may_retry_under_tcg(run):
                state = MachineState.RUNNING  # the next repair restarts it under TCG
        except qmp.QmpUnavailable:
            running = self.process_of(paths)
            state = MachineState.SHUTOFF if running is None or running.wait(5) else MachineState.CRASHED
        except HypervisorError as error:
            # qemu is busy or stuck; the guest is assumed to run.
            log.warning("machine %s: %s", machine_id, error)
            state = MachineState.RUNNING
        if state is MachineState.SHUTOFF:
            return MachineReport(id=machine_id, state=state)
        return MachineReport(id=machine_id, state=state, accelerator=run.accelerator, started_at=run.started_at)

    def provision(self, spec: MachineSpec, paths: MachinePaths, start: bool) -> MachineReport:
        """Create or update a machine that does not run; start it if `start`."""
        if start:
            return self.launch(spec, paths)
        if not paths.spec.exists():
            self.check_free_disk()
        private_directory(paths.directory)
        self.paths.set_owner(spec.id, self.config.host_name)
        self.use_images(spec)
        self.segments.claim(spec.id, spec.nics)
        self._ensure_disks(spec, paths)
        write(paths.spec, spec.model_dump_json().encode())
        return self.report(spec.id, paths)

    def launch(
        self, spec: MachineSpec, paths: MachinePaths, accelerator: str | None = None, *, resume: bool = False
    ) -> MachineReport:
        """Start a machine that does not run. Keeps existing disks; a failed launch removes what it created.

        With `resume` a suspended guest continues from its saved memory. The memory is used once: a retry after a
        crash boots the guest, because its disk may have changed since the memory was saved.
        """
        accelerator = accelerator or self.accelerators.select().accelerator
        is_new = not paths.spec.exists()
        if is_new:
            self.check_free_disk()
        owner = self.paths.owner(spec.id)
        with ExitStack() as undo:
            undo.callback(self._undo_launch, spec.id, paths, is_new=is_new, owner=owner)
            private_directory(paths.directory)
            self.paths.set_owner(spec.id, self.config.host_name)
            write(paths.spec, spec.model_dump_json().encode())
            self.use_images(spec)
            self.segments.claim(spec.id, spec.nics)
            disks = self._ensure_disks(spec, paths)
            memory = _claim_memory(paths) if resume else None
            before = load_runtime_state(paths)
            slots = before.slots if memory is not None else hotplug.assign_slots(spec.nics)
            if memory is None or not paths.config_drive.exists():
                write(paths.config_drive, config_drive(self.segments.guest_spec(spec), slots))
            accelerator = (memory and before.accelerator) or accelerator
            machine_type = before.machine_type if memory is not None else self._newest_machine_type()
            consoles = before.consoles if memory is not None else True
            run = RuntimeState(accelerator, datetime.now(UTC), slots, machine_type, consoles)
            run.save(paths)
            try:
                self._start(spec, paths, disks, run, memory)
            except LaunchFailed as error:
                if memory is not None:
                    os.rename(memory, paths.memory)
                    raise
                if not isinstance(error, AcceleratorFailed) or not self.accelerators.may_fall_back():
                    raise
                log.warning("machine %s: %s Starting it under TCG.", spec.id, error)
                accelerator = "tcg"
                run = replace(run, accelerator=accelerator)
                run.save(paths)
                self._start(spec, paths, disks, run, None)
                self.accelerators.recheck()
            if memory is not None:
                memory.unlink(missing_ok=True)
            undo.pop_all()
        started_at = load_runtime_state(paths).started_at
        return MachineReport(id=spec.id, state=MachineState.RUNNING, accelerator=accelerator, started_at=started_at)

    def _undo_launch(self, machine_id: str, paths: MachinePaths, *, is_new: bool, owner: str | None) -> None:
        """End the process first: a running process is found by its files."""
        try:
            self.end_processes(machine_id, paths)
        except (HypervisorError, OSError):
            log.exception("machine %s: qemu cannot be terminated; keeping its files", machine_id)
            return
        limits.remove_cgroup(cgroup_name(paths))
        if is_new:
            remove_directory(paths.directory)
            self.release(machine_id)
        else:
            self.paths.set_owner(machine_id, owner)

    def _start(
        self, spec: MachineSpec, paths: MachinePaths, disks: list[DiskFile], run: RuntimeState, memory: Path | None
    ) -> None:
        start_qemu(
            QemuLaunch(
                spec,
                paths,
                disks,
                accelerator=run.accelerator or "tcg",
                program=self.config.qemu,
                slots=run.slots,
                memory=memory,
                machine_type=run.machine_type,
                processor=self.config.cpu_model,
                consoles=run.consoles,
            ),
            self.links,
        )

    def stop(self, paths: MachinePaths, grace_seconds: float) -> None:
        """End the machine's process, after an ACPI shutdown if `grace_seconds` is positive."""
        running = self.process_of(paths)
        if running is not None and grace_seconds > 0:
            self._power_off(running, paths, grace_seconds)
        self.end_processes(paths.directory.name, paths)
        limits.remove_cgroup(cgroup_name(paths))
        paths.memory.unlink(missing_ok=True)

    def _power_off(self, running: Process, paths: MachinePaths, grace_seconds: float) -> None:
        """Press the ACPI power button repeatedly, as a guest that still boots ignores it, and wait for the end of qemu.

        Returns at the end of the grace period, when the machine is interrupted, or when no guest runs.
        """
        interrupted = self.locks.reset_interrupt(paths.directory.name)
        deadline = time.monotonic() + grace_seconds
        while (left := deadline - time.monotonic()) > 0 and not interrupted.is_set():
            with contextlib.suppress(HypervisorError):  # busy, or gone, which the wait detects
                if qmp.query_state(paths.qmp)[0] is not MachineState.RUNNING:
                    return
                qmp.execute(paths.qmp, "system_powerdown")
            if _wait_for_end(running, min(left, POWER_BUTTON_SECONDS), interrupted):
                return

    def _newest_machine_type(self) -> str:
        """Return the versioned machine type that `q35` stands for; migrated and resumed guests need the same one."""
        if self._machine_type is None:
            self._machine_type = host_facts.machine_type(self.config.qemu)
        return self._machine_type

    def _ensure_disks(self, spec: MachineSpec, paths: MachinePaths) -> list[DiskFile]:
        """Create missing disks of the spec, delete disk files that the spec no longer has, and return all disks."""
        names = {disk.name for disk in spec.disks}
        for path in paths.directory.glob("*.qcow2"):
            if path.stem not in names:
                path.unlink()
        disks = [file for disk in spec.disks for file in self.disks.ensure(disk, paths)]
        return [*disks, DiskFile(name="config", path=paths.config_drive, format="raw", read_only=True)]

    def writable_disks(self, spec: MachineSpec, paths: MachinePaths) -> list[DiskFile]:
        """Return the existing writable disks except the rescue disk, in the order of the guest."""
        wanted = [disk for disk in spec.disks if disk.name != "rescue" and paths.disk(disk.name).exists()]
        files = [file for disk in wanted for file in self.disks.ensure(disk, paths)]
        return [file for file in files if not file.read_only]

    def release(self, machine_id: str) -> None:
        """Release the machine's links and images."""
        self.segments.release(machine_id)
        self._images.pop(machine_id, None)
        self._without_space.discard(machine_id)

    def use_images(self, spec: MachineSpec) -> None:
        """Protect the images of the spec from eviction while the machine exists."""
        self._images[spec.id] = frozenset(disk.image.id for disk in spec.disks if disk.image is not None)

    def uses_image(self, image_id: str) -> bool:
        """Whether a disk of a machine on this host uses the image."""
        return any(image_id in ids for ids in list(self._images.values()))

    def disk_is_low(self) -> bool:
        """Whether the machines' file system has less free space than new work needs."""
        return host_facts.free_disk_mib(self.paths.machines) < self.config.min_free_disk_mib

    def check_free_disk(self) -> None:
        """Raise HypervisorError when the disk is too full for new work."""
        free = host_facts.free_disk_mib(self.paths.machines)
        if free < self.config.min_free_disk_mib:
            raise HypervisorError(
                f"The disk of host {self.config.host_name} is almost full: {free} MiB are free, and new work is "
                f"accepted from {self.config.min_free_disk_mib} MiB on."
            )

    def resume_if_space(self, machine_id: str) -> None:
        """Resume a guest paused by ENOSPC once the file system has space. qemu retries the failed writes."""
        if machine_id not in self._without_space:
            return
        if host_facts.free_disk_mib(self.paths.machines) < RESUME_MIB:
            return
        with self.locks.try_hold(machine_id) as paths, contextlib.suppress(HypervisorError):
            if paths is not None and qmp.query_state(paths.qmp)[0] is MachineState.NO_SPACE:
                qmp.execute(paths.qmp, "cont")
                log.info("machine %s resumed: its file system has space again", machine_id)

    def retry_under_tcg_if_idle(self, machine_id: str) -> None:
        """Restart a guest under TCG that entered `internal-error` soon after its start under KVM.

        Skips locked machines, which may stay locked for a minute; the next call retries.
        """
        if not self._may_retry_under_tcg(load_runtime_state(self.paths.machine(machine_id))):
            return
        with self.locks.try_hold(machine_id) as paths:
            if paths is not None:
                try:
                    self._retry_under_tcg(machine_id, paths)
                except HypervisorError:
                    log.exception("machine %s failed under KVM and cannot be restarted under TCG", machine_id)

    def _may_retry_under_tcg(self, run: RuntimeState) -> bool:
        """Whether the run is under KVM and recent enough to blame KVM instead of the guest."""
        age = (datetime.now(UTC) - run.started_at).total_seconds()
        return run.accelerator == "kvm" and age < KVM_TRIAL_SECONDS and self.accelerators.may_fall_back()

    def _retry_under_tcg(self, machine_id: str, paths: MachinePaths) -> None:
        running, spec = self.process_of(paths), self.spec(machine_id)
        if running is None or spec is None or not self._may_retry_under_tcg(load_runtime_state(paths)):
            return
        try:
            _, word = qmp.query_state(paths.qmp)
        except HypervisorError:
            return
        if word != INTERNAL_ERROR:
            return
        log.warning("machine %s: internal-error under KVM; restarting under TCG", machine_id)
        running.end()
        self.launch(spec, paths, accelerator="tcg")
        self.accelerators.recheck()


def _claim_memory(paths: MachinePaths) -> Path | None:
    """Rename the saved memory of a suspended guest so that it is used once; None without one."""
    taken = paths.memory.with_name("memory-in-use")
    taken.unlink(missing_ok=True)
    if not paths.memory.exists():
        return None
    os.rename(paths.memory, taken)
    return taken


def _wait_for_end(running: Process, timeout_seconds: float, interrupted: threading.Event) -> bool:
    """Wait for the end of the process (True), the timeout or an interrupt (False)."""
    deadline = time.monotonic() + timeout_seconds
    while (left := deadline - time.monotonic()) > 0 and not interrupted.is_set():
        if running.wait(min(left, 0.25)):
            return True
    return False
