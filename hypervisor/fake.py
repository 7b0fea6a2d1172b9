"""FakeHypervisor: an in-memory host for tests, with failure injection."""

import socket
from collections.abc import Sequence
from ipaddress import IPv6Address

from hypervisor.api.errors import HypervisorError, LaunchFailed
from hypervisor.api.migration import (
    MigrationOffer,
    MigrationPlan,
    MigrationProgress,
    MigrationTarget,
    OfferedDisk,
    TransferResult,
    pack,
    unpack,
)
from hypervisor.api.protocol import ConsoleKind
from hypervisor.api.spec import (
    Diagnostics,
    DiskCounters,
    HostReport,
    MachineReport,
    MachineSpec,
    MachineState,
    NicCounters,
    SnapshotFile,
)
from hypervisor.fake_host import ALIVE, FakeHost, FakeMachine

# Incoming machines of all fakes in this process, by plan; machines of other processes arrive with fresh disks.
_AWAITED: dict[str, "FakeMachine"] = {}


class FakeHypervisor(FakeHost):
    """Implements `Hypervisor` in memory."""

    def describe(self) -> HostReport:
        return HostReport(
            name=self.name,
            vcpus=self.vcpus,
            memory_mib=self.memory_mib,
            disk_gib=self.disk_gib,
            accelerator=self.accelerator,
            accelerator_reason=self.accelerator_reason,
            hypervisor_version=7_002_022,
            cpu_model="fake",
            disk_is_low=self.disk_is_low,
        )

    def ensure_running(self, spec: MachineSpec) -> MachineReport:
        self._enter("ensure_running", spec.id)
        with self._lock:
            machine = self.machines.get(spec.id)
            if machine is None:
                if self.images is not None:
                    for disk in spec.disks:
                        if disk.image is not None:
                            self.images.local_path(disk.image)
                machine = self.machines[spec.id] = FakeMachine(spec)
            if machine.state in (MachineState.RUNNING, MachineState.PAUSED):
                return self._report(spec.id)
            machine.spec = spec
            machine.suspended = False
            self._start(machine)
            return self._report(spec.id)

    def ensure_stopped(self, machine_id: str, *, grace_seconds: float) -> MachineReport:  # noqa: ARG002
        self._enter("ensure_stopped", machine_id)
        with self._lock:
            if machine_id in self.machines:
                self._end(self.machines[machine_id])
                self.machines[machine_id].suspended = False
            return self._report(machine_id)

    def reboot(self, spec: MachineSpec, *, hard: bool, grace_seconds: float) -> MachineReport:  # noqa: ARG002
        self._enter("reboot", spec.id)
        with self._lock:
            machine = self.machines.setdefault(spec.id, FakeMachine(spec))
            if machine.console:
                machine.console += b"hard reboot\n" if hard or not self.obeys_acpi else b"soft reboot\n"
            self._restart(machine, spec, start=True)
            return self._report(spec.id)

    def pause(self, machine_id: str) -> MachineReport:
        return self._switch("pause", machine_id, MachineState.PAUSED)

    def unpause(self, machine_id: str) -> MachineReport:
        return self._switch("unpause", machine_id, MachineState.RUNNING)

    def suspend(self, machine_id: str) -> MachineReport:
        self._enter("suspend", machine_id)
        with self._lock:
            machine = self.machines.get(machine_id)
            if machine is None or (machine.state not in ALIVE and not machine.suspended):
                raise HypervisorError(f"Machine {machine_id} does not run.")
            self._end(machine)
            machine.suspended = True
            return self._report(machine_id)

    def rebuild(self, spec: MachineSpec, *, start: bool, keep: frozenset[str] = frozenset()) -> MachineReport:  # noqa: ARG002
        self._enter("rebuild", spec.id)
        with self._lock:
            machine = self.machines.setdefault(spec.id, FakeMachine(spec))
            if machine.spec.generation != spec.generation:
                machine.disk = b"fresh"
            self._restart(machine, spec, start)
            return self._report(spec.id)

    def resize(self, spec: MachineSpec, *, start: bool, grace_seconds: float) -> MachineReport:  # noqa: ARG002
        self._enter("resize", spec.id)
        with self._lock:
            machine = self._existing(spec.id)
            if machine.before_resize is None:
                machine.before_resize = machine.disk
            self._restart(machine, spec, start)
            return self._report(spec.id)

    def confirm_resize(self, machine_id: str) -> None:
        self._enter("confirm_resize", machine_id)
        with self._lock:
            self._existing(machine_id).before_resize = None

    def revert_resize(self, spec: MachineSpec, *, start: bool) -> MachineReport:
        self._enter("revert_resize", spec.id)
        with self._lock:
            machine = self._existing(spec.id)
            if machine.before_resize is not None:
                machine.disk, machine.before_resize = machine.before_resize, None
            self._restart(machine, spec, start)
            return self._report(spec.id)

    def snapshot(self, spec: MachineSpec, name: str) -> SnapshotFile:
        self._enter("snapshot", spec.id)
        with self._lock:
            disk = self._existing(spec.id).disk
        path = self._snapshot_path(spec.id, name)
        path.write_bytes(disk.ljust(1 << 20, b"\0"))
        return SnapshotFile(path=path, disk_format="raw")

    def discard_snapshot(self, machine_id: str, name: str) -> None:
        self._enter("discard_snapshot", machine_id)
        self._snapshot_path(machine_id, name).unlink(missing_ok=True)

    def ensure_nics(self, spec: MachineSpec) -> None:
        self._enter("ensure_nics", spec.id)
        with self._lock:
            machine = self._existing(spec.id)
            machine.spec = machine.spec.model_copy(update={"nics": spec.nics})

    def begin_migration(self, spec: MachineSpec, *, live: bool) -> MigrationOffer:
        self._enter("begin_migration", spec.id)
        with self._lock:
            machine = self._existing(spec.id)
            if live and machine.state not in ALIVE:
                raise HypervisorError(f"Machine {spec.id} does not run.")
            disks = tuple(OfferedDisk(name=disk.name, size_bytes=1, alone=False) for disk in machine.spec.disks)
            return MigrationOffer(disks=disks, accelerator="tcg", machine_type="fake")

    def prepare_migration(self, spec: MachineSpec, plan: MigrationPlan) -> MigrationTarget:
        self._enter("prepare_migration", spec.id)
        with self._lock:
            if spec.memory_mib > self.memory_mib:
                raise LaunchFailed(f"The host has {self.memory_mib} MiB of memory, the machine asks for more.")
            known = self.machines.get(spec.id)
            if known is None or known.awaited != plan.id:
                self.machines[spec.id] = FakeMachine(spec, state=MachineState.PAUSED, awaited=plan.id)
            _AWAITED[plan.id] = self.machines[spec.id]
            return MigrationTarget(address=IPv6Address("::1"), disk_port=1, memory_port=1 if plan.live else None)

    def perform_migration(
        self,
        spec: MachineSpec,
        plan: MigrationPlan,
        landing: MigrationTarget,  # noqa: ARG002
        *,
        grace_seconds: float,  # noqa: ARG002
    ) -> TransferResult:
        self._enter("perform_migration", spec.id)
        with self._lock:
            machine = self._existing(spec.id)
            if plan.live and machine.sent != plan.id and machine.state not in ALIVE:
                raise HypervisorError(f"Machine {spec.id} does not run.")
            if (target := _AWAITED.get(plan.id)) is not None:
                target.disk, target.starts = machine.disk, machine.starts
            machine.sent = plan.id
            if plan.live:
                machine.state = MachineState.PAUSED
                return TransferResult(console=pack(machine.console))
            self._end(machine)
            return TransferResult()

    def finish_migration(self, spec: MachineSpec, plan: MigrationPlan, sent: TransferResult | None) -> bool:
        self._enter("finish_migration", spec.id)
        _AWAITED.pop(plan.id, None)
        with self._lock:
            machine = self.machines.get(spec.id)
            if machine is None or machine.awaited is None:
                return machine is not None and machine.spec.generation == spec.generation
            if sent is None:
                del self.machines[spec.id]
                return False
            machine.spec, machine.awaited = spec, None
            if not plan.live:
                self._restart(machine, spec, plan.start)
                return True
            machine.console = unpack(sent.console or pack(b""))
            machine.started_at = self.clock()
            machine.state = MachineState.PAUSED if plan.paused else MachineState.RUNNING
            return True

    def cancel_migration(self, spec: MachineSpec, plan: MigrationPlan) -> MachineReport:
        self._enter("cancel_migration", spec.id)
        with self._lock:
            machine = self.machines.get(spec.id)
            if machine is not None and plan.live and machine.sent == plan.id:
                machine.state = MachineState.PAUSED if plan.paused else MachineState.RUNNING
            elif machine is not None and not plan.live and machine.state not in ALIVE and plan.start:
                self._start(machine)
            return self._report(spec.id)

    def migration_progress(self, machine_id: str) -> MigrationProgress | None:
        self._enter("migration_progress", machine_id)
        return self.current_progress

    def force_migration_completion(self, machine_id: str) -> None:
        self._enter("force_migration_completion", machine_id)

    def diagnostics(self, machine_id: str) -> Diagnostics:
        self._enter("diagnostics", machine_id)
        with self._lock:
            machine = self._existing(machine_id)
            if machine.state not in ALIVE:
                raise HypervisorError(f"Machine {machine_id} does not run.")
            spec = machine.spec
            return Diagnostics(
                state=machine.state,
                uptime_seconds=0,
                memory_mib=spec.memory_mib,
                cpu_times=(0,) * spec.vcpus,
                nics=tuple(NicCounters(mac=nic.mac) for nic in spec.nics),
                disks=tuple(DiskCounters(name=disk.name) for disk in spec.disks),
            )

    def inject_nmi(self, machine_id: str) -> None:
        self._enter("inject_nmi", machine_id)
        with self._lock:
            machine = self._existing(machine_id)
            if machine.state not in ALIVE:
                raise HypervisorError(f"Machine {machine_id} does not run.")
            machine.console += b"Uhhuh. NMI received for unknown reason 30 on CPU 0.\n"

    def interrupt(self, machine_id: str) -> None:
        self.interrupted.append(machine_id)

    def remove(self, machine_id: str) -> None:
        self._enter("remove", machine_id)
        with self._lock:
            self.machines.pop(machine_id, None)

    def report(self, machine_id: str) -> MachineReport:
        self._enter("report", machine_id)
        with self._lock:
            return self._report(machine_id)

    def reports(self) -> Sequence[MachineReport]:
        self._enter("reports", "")
        with self._lock:
            return [self._report(machine_id) for machine_id in self.machines]

    def console_log(self, machine_id: str) -> bytes:
        self._enter("console_log", machine_id)
        with self._lock:
            machine = self.machines.get(machine_id)
            return b"" if machine is None else machine.console[-(1 << 20) :]

    def check_console(self, machine_id: str) -> None:
        self._enter("check_console", machine_id)
        with self._lock:
            machine = self.machines.get(machine_id)
            if machine is None or machine.state not in (MachineState.RUNNING, MachineState.PAUSED):
                raise HypervisorError(f"Machine {machine_id} does not run.")

    def open_console(self, machine_id: str, kind: ConsoleKind) -> socket.socket:
        self.check_console(machine_id)
        with self._lock:
            ours, theirs = socket.socketpair()
            self.consoles.append((machine_id, kind, theirs))
            return ours

    def password(self, machine_id: str) -> bytes:
        return self.passwords.get(machine_id, b"")

    def forget_password(self, machine_id: str) -> None:
        self.passwords.pop(machine_id, None)

    def spec(self, machine_id: str) -> MachineSpec | None:
        with self._lock:
            machine = self.machines.get(machine_id)
            return None if machine is None else machine.spec

    def repair_processes(self) -> None:
        self._enter("repair_processes", "")

    def repair(self) -> None:
        self._enter("repair", "")

    def evict_images(self, in_use: frozenset[str]) -> None:
        self._enter("evict_images", "")
        self.evictions.append(in_use)

    def close_down(self) -> None:
        self._enter("close_down", "")
        self.closed = True
