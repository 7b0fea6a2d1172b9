"""Base of FakeHypervisor: its machines, failure injection and simulated events of guests and hosts."""

import os
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hypervisor.api.errors import HypervisorError, LaunchFailed
from hypervisor.api.migration import MigrationProgress
from hypervisor.api.protocol import ConsoleKind, ImageSource
from hypervisor.api.spec import MachineReport, MachineSpec, MachineState

ALIVE = frozenset({MachineState.RUNNING, MachineState.PAUSED, MachineState.NO_SPACE, MachineState.CRASHED})


@dataclass
class FakeMachine:
    """State of one machine, which a real host keeps in a directory and a process."""

    spec: MachineSpec
    state: MachineState = MachineState.SHUTOFF
    started_at: datetime | None = None
    console: bytes = b""
    starts: int = 0
    disk: bytes = b"fresh"
    before_resize: bytes | None = None
    suspended: bool = False
    awaited: str | None = None  # plan of its incoming migration
    sent: str | None = None  # plan of its completed outgoing migration


@dataclass
class FakeHost:
    """State of a fake host and the controls that tests have over it.

    `machines` may be passed to a second fake to simulate a restart of the agent. `before` is called with the method's
    name and the machine's id at the start of each call; it may sleep, wait for an event or raise.
    """

    name: str = "fake-host"
    vcpus: int = 64
    memory_mib: int = 262_144
    disk_gib: int = 10_000
    accelerator: str = "tcg"
    accelerator_reason: str | None = "fake host"
    disk_is_low: bool = False
    images: ImageSource | None = None
    machines: dict[str, FakeMachine] = field(default_factory=dict)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    before: Callable[[str, str], None] | None = None
    obeys_acpi: bool = True
    calls: list[tuple[str, str]] = field(default_factory=list)
    evictions: list[frozenset[str]] = field(default_factory=list)
    closed: bool = False
    interrupted: list[str] = field(default_factory=list)
    current_progress: MigrationProgress | None = None
    passwords: dict[str, bytes] = field(default_factory=dict)
    consoles: list[tuple[str, ConsoleKind, socket.socket]] = field(default_factory=list)
    _failures: dict[str, list[HypervisorError]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def fail_next(self, method: str, error: HypervisorError, times: int = 1) -> None:
        """The next `times` calls of `method` raise `error`."""
        self._failures.setdefault(method, []).extend([error] * times)

    def guest_powers_off(self, machine_id: str) -> None:
        """Simulate `poweroff` in the guest."""
        with self._lock:
            self._end(self.machines[machine_id])

    def guest_crashes(self, machine_id: str) -> None:
        """Simulate a crashed guest in a running qemu."""
        with self._lock:
            self.machines[machine_id].state = MachineState.CRASHED

    def fill_disk(self, machine_id: str) -> None:
        """Simulate a full file system: the guest is paused and new work is refused."""
        self.disk_is_low = True
        with self._lock:
            self.machines[machine_id].state = MachineState.NO_SPACE

    def free_disk(self, machine_id: str) -> None:
        """Simulate free space: the guest continues."""
        self.disk_is_low = False
        with self._lock:
            self.machines[machine_id].state = MachineState.RUNNING

    def lose(self, machine_id: str) -> None:
        """Simulate the loss of disk and process."""
        with self._lock:
            self.machines.pop(machine_id, None)

    def _enter(self, method: str, machine_id: str) -> None:
        self.calls.append((method, machine_id))
        if self.before is not None:
            self.before(method, machine_id)
        with self._lock:
            failures = self._failures.get(method)
            error = failures.pop(0) if failures else None
        if error is not None:
            raise error

    def _start(self, machine: FakeMachine) -> None:
        if machine.spec.memory_mib > self.memory_mib:
            raise LaunchFailed(f"The host has {self.memory_mib} MiB of memory, the machine asks for more.")
        machine.state = MachineState.RUNNING
        machine.started_at = self.clock()
        machine.starts += 1
        machine.console += f"{machine.spec.hostname} boots\n".encode()

    def _restart(self, machine: FakeMachine, spec: MachineSpec, start: bool) -> None:
        machine.spec = spec
        self._end(machine)
        machine.suspended = False
        if start:
            self._start(machine)

    def _existing(self, machine_id: str) -> FakeMachine:
        try:
            return self.machines[machine_id]
        except KeyError:
            raise HypervisorError(f"Machine {machine_id} is not here.") from None

    def _snapshot_path(self, machine_id: str, name: str) -> Path:
        return Path(tempfile.gettempdir()) / f"fake-{os.getpid()}-{machine_id}-{name}.raw"

    @staticmethod
    def _end(machine: FakeMachine) -> None:
        machine.state = MachineState.SHUTOFF
        machine.started_at = None

    def _switch(self, method: str, machine_id: str, state: MachineState) -> MachineReport:
        self._enter(method, machine_id)
        with self._lock:
            machine = self.machines.get(machine_id)
            if machine is None or machine.state not in (MachineState.RUNNING, MachineState.PAUSED):
                raise HypervisorError(f"Machine {machine_id} does not run.")
            machine.state = state
            return self._report(machine_id)

    def _report(self, machine_id: str) -> MachineReport:
        machine = self.machines.get(machine_id)
        if machine is None:
            return MachineReport(id=machine_id, state=MachineState.ABSENT)
        alive = machine.state in ALIVE
        return MachineReport(
            id=machine_id,
            state=machine.state,
            accelerator=self.accelerator if alive else None,
            started_at=machine.started_at if alive else None,
        )
