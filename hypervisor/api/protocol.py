"""The seam between the agent and a host: what every hypervisor, real or fake, can do.

All methods are idempotent and may be called again after a crash at any point. They block; the agent calls them
from worker threads, never twice at the same time for one machine.
"""

import socket
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from hypervisor.api.migration import MigrationOffer, MigrationPlan, MigrationProgress, MigrationTarget, TransferResult
from hypervisor.api.spec import Diagnostics, HostReport, ImageRef, MachineReport, MachineSpec, SnapshotFile


class ConsoleKind(StrEnum):
    """What of a guest is looked at."""

    VNC = "vnc"
    SERIAL = "serial"


class ImageSource(Protocol):
    """Where a host gets the bytes of an image from."""

    def local_path(self, image: ImageRef) -> Path:
        """A readable file with exactly the stored bytes; immutable, may be unlinked any time after it was opened or
        hard-linked. Raises ImageUnusable when the image is gone."""
        ...


class Hypervisor(Protocol):
    """A host that runs machines."""

    def describe(self) -> HostReport:
        """Size, versions, accelerator."""
        ...

    def ensure_running(self, spec: MachineSpec) -> MachineReport:
        """The machine runs after this, created from nothing if need be; a running one is left alone.
        The disks of a machine that exists are kept. Raises HypervisorError; then nothing new is left behind."""
        ...

    def ensure_stopped(self, machine_id: str, *, grace_seconds: float) -> MachineReport:
        """The process is gone after this: ACPI power button first, then, after the grace, by force. Disks stay."""
        ...

    def reboot(self, spec: MachineSpec, *, hard: bool, grace_seconds: float) -> MachineReport:
        """Soft: ACPI, wait for the guest to power off, start again; a guest that does not obey is rebooted hard.
        Hard: end the process, make links and config drive anew, start again."""
        ...

    def pause(self, machine_id: str) -> MachineReport: ...

    def unpause(self, machine_id: str) -> MachineReport: ...

    def suspend(self, machine_id: str) -> MachineReport:
        """The guest's memory is in a file and its process is gone. `ensure_running` goes on from there, once; after a
        stop, a reboot or a rebuild the file is gone. Content when the machine does not run but can go on."""
        ...

    def rebuild(self, spec: MachineSpec, *, start: bool, keep: frozenset[str] = frozenset()) -> MachineReport:
        """End the process and make the disks anew, except those named in `keep`. Done already for a machine that has
        the spec's generation."""
        ...

    def resize(self, spec: MachineSpec, *, start: bool, grace_seconds: float) -> MachineReport:
        """Stop, remember the disks as they are, let them grow to what the spec says, and start if wanted. When it
        fails the machine is stopped and its disks are as they were."""
        ...

    def confirm_resize(self, machine_id: str) -> None:
        """The disks as they were before the resize may be forgotten. The guest goes on."""
        ...

    def revert_resize(self, spec: MachineSpec, *, start: bool) -> MachineReport:
        """End the process, bring the disks back to what they were before the resize, and start if wanted."""
        ...

    def snapshot(self, spec: MachineSpec, name: str) -> SnapshotFile:
        """The root disk as it is now, in a file of that name, while the guest goes on. A file that is left from an
        attempt that was cut short is made anew."""
        ...

    def discard_snapshot(self, machine_id: str, name: str) -> None:
        """The file that `snapshot` made goes; content if it is gone."""
        ...

    def ensure_nics(self, spec: MachineSpec) -> None:
        """A running machine has the interfaces of the spec and no others; one that does not run gets them when it
        starts. Raises HypervisorError when there is no free slot."""
        ...

    def begin_migration(self, spec: MachineSpec, *, live: bool) -> MigrationOffer:
        """What another host has to know of this machine to take it over. Raises HypervisorError, also when one that is
        to move `live` does not run."""
        ...

    def prepare_migration(self, spec: MachineSpec, plan: MigrationPlan) -> MigrationTarget:
        """Await the machine from another host. Raises HypervisorError when it cannot go on here; then nothing is left.
        Asked again for the same plan it says the same."""
        ...

    def perform_migration(
        self, spec: MachineSpec, plan: MigrationPlan, landing: MigrationTarget, *, grace_seconds: float
    ) -> TransferResult:
        """The machine is with the other host and does not run here any more; its disks are still here. Raises
        HypervisorError; then, as far as that can be known here, it goes on here."""
        ...

    def finish_migration(self, spec: MachineSpec, plan: MigrationPlan, sent: TransferResult | None) -> bool:
        """The machine is this host's own; one that came live runs, others are started if the plan says so. Disks have
        the sizes of the spec. False when it has not arrived: nothing of it is left here, and it will never run here.
        `sent` is None when the other host could not send it, or cannot say."""
        ...

    def cancel_migration(self, spec: MachineSpec, plan: MigrationPlan) -> MachineReport:
        """The machine goes on here: the other host is known not to have it."""
        ...

    def migration_progress(self, machine_id: str) -> MigrationProgress | None:
        """How far the machine is on its way; None when it is not."""
        ...

    def force_migration_completion(self, machine_id: str) -> None:
        """A live migration ends whatever the guest writes meanwhile, by letting it stand still for longer."""
        ...

    def password(self, machine_id: str) -> bytes:
        """What the guest has posted to the metadata service; empty before."""
        ...

    def forget_password(self, machine_id: str) -> None:
        """That goes, and the guest may post another one; content if it is gone."""
        ...

    def diagnostics(self, machine_id: str) -> Diagnostics:
        """Counters of a running machine. Raises HypervisorError when it does not run."""
        ...

    def inject_nmi(self, machine_id: str) -> None:
        """The guest gets a non-maskable interrupt: kernels that are set up for it dump their memory. Raises
        HypervisorError when the machine does not run."""
        ...

    def interrupt(self, machine_id: str) -> None:
        """Somebody waits: a stop under way waits no longer for the guest, a snapshot under way is given up."""
        ...

    def remove(self, machine_id: str) -> None:
        """Nothing of the machine is left: process, taps, overlay, config drive, console log, directory; a bridge
        that no other machine here uses goes too."""
        ...

    def report(self, machine_id: str) -> MachineReport: ...

    def reports(self) -> Sequence[MachineReport]:
        """Every machine of this installation that leaves any trace on this host."""
        ...

    def console_log(self, machine_id: str) -> bytes:
        """What the serial console has shown, the last MiB at most."""
        ...

    def check_console(self, machine_id: str) -> None:
        """Raises HypervisorError when the machine does not run, or was started without consoles."""
        ...

    def open_console(self, machine_id: str, kind: ConsoleKind) -> socket.socket:
        """A connection to the screen (RFB) or the serial console of a machine that runs; it ends with the machine.
        Raises HypervisorError when there is none (`check_console`), or somebody has the serial one."""
        ...

    def spec(self, machine_id: str) -> MachineSpec | None:
        """The document kept beside the machine."""
        ...

    def repair_processes(self) -> None:
        """Part of `repair`: machines whose process is there but no longer known are known again; processes that belong
        to no machine are ended."""
        ...

    def repair(self) -> None:
        """Called at start and now and then: links, radvd and rules are as the running machines need them."""
        ...

    def evict_images(self, in_use: frozenset[str]) -> None:
        """Base images that no machine here and no id in `in_use` needs may go. The host may keep some of them for the
        next machine."""
        ...

    def close_down(self) -> None:
        """After the last machine was removed (`sixstack down --servers`): ends radvd, removes bridges and segments."""
        ...
