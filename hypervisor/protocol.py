"""The seam between the agent and a host: what every hypervisor, real or fake, can do.

All methods are idempotent and may be called again after a crash at any point. They block; the agent calls them
from worker threads, never twice at the same time for one machine.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hypervisor.machine import HostReport, ImageRef, MachineReport, MachineSpec


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

    def spec(self, machine_id: str) -> MachineSpec | None:
        """The document kept beside the machine."""
        ...

    def repair(self) -> None:
        """Called at start and now and then: links, radvd and rules are as the running machines need them."""
        ...

    def evict_images(self, in_use: frozenset[str]) -> None:
        """Base images that no machine here and no id in `in_use` needs may go."""
        ...

    def close_down(self) -> None:
        """After the last machine was removed (`sixstack down --servers`): ends radvd, removes bridges and segments."""
        ...
