"""The driver interface of a host (Nova: ComputeDriver), implemented by QemuHypervisor and FakeHypervisor.

All methods are idempotent and may be repeated after a crash at any point. They block; the agent calls them from worker
threads, one call at a time for each machine.
"""

import socket
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from hypervisor.api.migration import MigrationOffer, MigrationPlan, MigrationProgress, MigrationTarget, TransferResult
from hypervisor.api.spec import Diagnostics, HostReport, ImageRef, MachineReport, MachineSpec, SnapshotFile


class ConsoleKind(StrEnum):
    """The kinds of interactive consoles."""

    VNC = "vnc"
    SERIAL = "serial"


class ImageSource(Protocol):
    """Provides the stored bytes of images to a host."""

    def local_path(self, image: ImageRef) -> Path:
        """Return an immutable, readable file with exactly the stored bytes. It may be unlinked at any time after the
        caller has opened or hard-linked it. Raises ImageUnusable when the image is gone."""
        ...


class Hypervisor(Protocol):
    """A host that runs machines."""

    def describe(self) -> HostReport:
        """Report size, versions and accelerator of the host."""
        ...

    def ensure_running(self, spec: MachineSpec) -> MachineReport:
        """Start the machine, creating it if necessary; do nothing when it runs. Existing disks are kept. Raises
        HypervisorError after removing everything this call created."""
        ...

    def ensure_stopped(self, machine_id: str, *, grace_seconds: float) -> MachineReport:
        """Stop the machine: press the ACPI power button, and kill the process after the grace period. Disks stay."""
        ...

    def reboot(self, spec: MachineSpec, *, hard: bool, grace_seconds: float) -> MachineReport:
        """Reboot the machine. Soft: request an ACPI shutdown, wait for power off, start; reboot hard after the grace
        period. Hard: kill the process, recreate links and config drive, start."""
        ...

    def pause(self, machine_id: str) -> MachineReport: ...

    def unpause(self, machine_id: str) -> MachineReport: ...

    def suspend(self, machine_id: str) -> MachineReport:
        """Save the guest's memory to a file and end the process. The next `ensure_running` restores the memory and
        removes the file; stop, reboot and rebuild discard it. Does nothing when the machine is suspended already."""
        ...

    def rebuild(self, spec: MachineSpec, *, start: bool, keep: frozenset[str] = frozenset()) -> MachineReport:
        """End the process and recreate the disks, except those named in `keep`. Does nothing to a machine that already
        has the spec's generation."""
        ...

    def resize(self, spec: MachineSpec, *, start: bool, grace_seconds: float) -> MachineReport:
        """Stop the machine, save the disks for a revert, grow them to the sizes of the spec, and start if requested. On
        failure the machine is stopped and its disks are unchanged."""
        ...

    def confirm_resize(self, machine_id: str) -> None:
        """Delete the disks saved by `resize`. The guest keeps running."""
        ...

    def revert_resize(self, spec: MachineSpec, *, start: bool) -> MachineReport:
        """End the process, restore the disks saved by `resize`, and start if requested."""
        ...

    def snapshot(self, spec: MachineSpec, name: str) -> SnapshotFile:
        """Copy the current root disk to a file of that name while the guest keeps running. The file of an interrupted
        attempt is replaced."""
        ...

    def discard_snapshot(self, machine_id: str, name: str) -> None:
        """Remove the file created by `snapshot`, if it exists."""
        ...

    def ensure_nics(self, spec: MachineSpec) -> None:
        """Plug and unplug interfaces of a running machine to match the spec; a stopped machine gets them when it
        starts. Raises HypervisorError when there is no free slot."""
        ...

    def begin_migration(self, spec: MachineSpec, *, live: bool) -> MigrationOffer:
        """Describe the machine for the migration target. Raises HypervisorError, also for a `live` migration of a
        machine that does not run."""
        ...

    def prepare_migration(self, spec: MachineSpec, plan: MigrationPlan) -> MigrationTarget:
        """Prepare this host as migration target and listen for the source. Raises HypervisorError, with nothing left
        behind, when the machine cannot run here. Repeated calls with the same plan return the same target."""
        ...

    def perform_migration(
        self, spec: MachineSpec, plan: MigrationPlan, landing: MigrationTarget, *, grace_seconds: float
    ) -> TransferResult:
        """Transfer the machine to the target and stop it here; its disks stay. After a HypervisorError the machine
        continues here, as far as this host can determine."""
        ...

    def finish_migration(self, spec: MachineSpec, plan: MigrationPlan, sent: TransferResult | None) -> bool:
        """Take ownership of the machine on the target, resize disks to the spec, and start it after a cold migration if
        the plan says so. Returns False when the transfer is incomplete; then the machine is removed here and never runs
        here. `sent` is None when the source failed or its result is unknown."""
        ...

    def cancel_migration(self, spec: MachineSpec, plan: MigrationPlan) -> MachineReport:
        """Resume the machine on the source. Call only when the target is known not to have it."""
        ...

    def migration_progress(self, machine_id: str) -> MigrationProgress | None:
        """Return the progress of an outgoing migration; None when there is none."""
        ...

    def force_migration_completion(self, machine_id: str) -> None:
        """Make a live migration converge by allowing a longer downtime."""
        ...

    def password(self, machine_id: str) -> bytes:
        """Return the encrypted password that the guest posted to the metadata service; empty without one."""
        ...

    def forget_password(self, machine_id: str) -> None:
        """Delete the password, if any; the guest may post another one."""
        ...

    def diagnostics(self, machine_id: str) -> Diagnostics:
        """Read the counters of a running machine. Raises HypervisorError when it does not run."""
        ...

    def inject_nmi(self, machine_id: str) -> None:
        """Send a non-maskable interrupt to the guest, which may be configured to write a crash dump. Raises
        HypervisorError when the machine does not run."""
        ...

    def interrupt(self, machine_id: str) -> None:
        """Interrupt long operations: a stop in progress skips the rest of its grace period, a snapshot is aborted."""
        ...

    def remove(self, machine_id: str) -> None:
        """Remove the machine with process, taps, overlay, config drive, console log and directory, and its bridges when
        no other machine of this host uses them."""
        ...

    def report(self, machine_id: str) -> MachineReport: ...

    def reports(self) -> Sequence[MachineReport]:
        """Report every machine of this installation that has a process, files or links on this host."""
        ...

    def console_log(self, machine_id: str) -> bytes:
        """Return the output of the serial console, at most the last MiB."""
        ...

    def check_console(self, machine_id: str) -> None:
        """Raise HypervisorError when the machine does not run or was started without consoles."""
        ...

    def open_console(self, machine_id: str, kind: ConsoleKind) -> socket.socket:
        """Connect to the graphical (RFB) or serial console of a running machine. The connection closes when the machine
        stops. Raises HypervisorError as `check_console` does, or when the serial console is in use."""
        ...

    def spec(self, machine_id: str) -> MachineSpec | None:
        """Return the spec stored with the machine."""
        ...

    def repair_processes(self) -> None:
        """Restore lost pid files of running machines and end qemu processes without a machine; a part of `repair`."""
        ...

    def repair(self) -> None:
        """Reconcile links, radvd and filter rules with the running machines. Called at start and periodically."""
        ...

    def evict_images(self, in_use: frozenset[str]) -> None:
        """Evict base images that are neither in `in_use` nor backing a machine here. The host may keep some as a
        cache."""
        ...

    def close_down(self) -> None:
        """End radvd and remove bridges and segments after the last machine was removed (`sixstack down --servers`)."""
        ...
