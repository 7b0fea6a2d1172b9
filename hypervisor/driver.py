"""QemuHypervisor: runs machines with qemu, kernel links and files."""

import contextlib
import logging
import re
import socket
from collections.abc import Sequence
from dataclasses import replace

from hypervisor.api.errors import HypervisorError
from hypervisor.api.migration import MigrationOffer, MigrationPlan, MigrationProgress, MigrationTarget, TransferResult
from hypervisor.api.protocol import ConsoleKind, ImageSource
from hypervisor.api.spec import (
    Diagnostics,
    HostReport,
    MachineReport,
    MachineSpec,
    MachineState,
    SnapshotFile,
    disk_bytes,
)
from hypervisor.base import host_facts
from hypervisor.base.config import HostConfig
from hypervisor.base.paths import HostPaths, finish_removals, remove_directory, write
from hypervisor.base.runtime_state import load_runtime_state
from hypervisor.guest_data import metadata
from hypervisor.machines import diagnostics as machines_diagnostics
from hypervisor.machines import hotplug
from hypervisor.machines import suspend as machines_suspend
from hypervisor.machines.console_log import read_console_tail, trim_console
from hypervisor.machines.launch import machine_identity
from hypervisor.machines.machines import Machines
from hypervisor.machines.remote_console import open_screen, open_serial
from hypervisor.migration.driver import MigrationDriver
from hypervisor.network.antispoofing import AntiSpoofing
from hypervisor.network.host_filter import HostFilter
from hypervisor.network.links import METADATA_ADDRESS, Links, enable_forwarding
from hypervisor.network.nat64 import Nat64Service
from hypervisor.network.radvd import RouterAdvertiser
from hypervisor.network.segments import Segments
from hypervisor.qemu import qmp
from hypervisor.storage import snapshots
from hypervisor.storage.disks import Disks

log = logging.getLogger(__name__)


class QemuHypervisor:
    """Implements `Hypervisor`. All state is in files and processes, so that a restarted agent finds it."""

    def __init__(self, config: HostConfig, images: ImageSource) -> None:
        if not re.fullmatch(r"[0-9a-f]{4}", config.installation):
            raise ValueError(f"an installation id is four hex digits, not {config.installation!r}")
        self.config = config
        self.paths = HostPaths(config.state.resolve(), config.shared_machines, config.host_name)
        self.links = Links(config.installation, config.uplink, host_name=config.host_name, peers=config.peers)
        self.router = RouterAdvertiser(self.paths, config.router_timing)
        self.translator = Nat64Service(
            config.installation, self.paths, self.links, config.nat64, lambda: self.segments.ipv4_mappings()
        )
        resolvers = config.dns_servers or ((self.translator.resolver,) if config.nat64 else ())
        self.guard = AntiSpoofing(
            config.installation,
            self.links.tap,
            isolate=config.isolate_guests,
            host_filter=HostFilter(
                config.installation,
                METADATA_ADDRESS,
                uplink=config.uplink,
                peers=config.peers,
                resolvers=resolvers,
                tcp_ports=config.guests_reach_ports,
                is_open=config.guests_reach_host,
                ipv4_pool=config.nat64.pool if config.nat64 else None,
                allowed_ipv4=config.nat64_allow,
            ),
            nat64_prefix=config.nat64.prefix if config.nat64 else None,
        )
        self.segments = Segments(self.links, self.guard, self.router, resolvers, config.dns_search)
        self.disks = Disks(self.paths.bases, images)
        self.machines = Machines(config, self.paths, self.links, self.segments, self.disks)
        self._migrations = MigrationDriver(self.machines)
        self._version: int | None = None
        self._limits_raised = False

    # --- the host ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise HostUnfit, with a remedy, when this computer cannot run machines for this user."""
        host_facts.check_requirements(self.config.qemu)
        self.machines.accelerators.select()
        self.translator.check()

    def describe(self) -> HostReport:
        choice = self.machines.accelerators.select()
        if self._version is None:
            self._version = host_facts.qemu_version(self.config.qemu)
        return HostReport(
            name=self.config.host_name,
            vcpus=host_facts.cpu_count(),
            memory_mib=max(0, host_facts.memory_mib() - self.config.reserved_memory_mib),
            disk_gib=host_facts.disk_gib(self.paths.state),
            accelerator=choice.accelerator,
            accelerator_reason=choice.reason,
            hypervisor_version=self._version,
            cpu_model=host_facts.cpu_model(),
            disk_is_low=self.machines.disk_is_low(),
        )

    def repair_processes(self) -> None:
        self.machines.repair_processes()

    def repair(self) -> None:
        self.machines.repair_processes()
        finish_removals(self.paths.machines)
        running = []
        for machine_id in self.paths.machine_ids():
            paths = self.paths.machine(machine_id)
            trim_console(paths.console)
            if self.machines.process_of(paths) is not None:
                running.append(machine_id)
                self.machines.retry_under_tcg_if_idle(machine_id)
                self.machines.resume_if_space(machine_id)
        self._raise_limits()
        self.segments.repair(running)
        if self.config.forward:
            enable_forwarding()
        try:
            self.translator.ensure()
        except HypervisorError as error:
            log.error("NAT64 is unavailable: %s", error)

    def _raise_limits(self) -> None:
        """Raise the kernel's neighbor table limits once; containers may forbid it."""
        if not self._limits_raised:
            self._limits_raised = True
            try:
                host_facts.raise_neighbour_limits()
            except HypervisorError as error:
                log.warning("%s", error)

    def evict_images(self, in_use: frozenset[str]) -> None:
        keep = self.config.image_cache_gib << 30
        self.disks.evict(lambda image_id: image_id in in_use or self.machines.uses_image(image_id), keep)

    def close_down(self) -> None:
        self.machines.repair_processes()
        self.segments.close_down()
        self.translator.close_down()

    def close(self) -> None:
        """Close sockets of this process. Machines, links and radvd continue."""
        self.links.close()

    # --- machines ---------------------------------------------------------------------------------------------------

    def ensure_running(self, spec: MachineSpec) -> MachineReport:
        with self.machines.locks.hold(spec.id) as paths:
            running = self.machines.process_of(paths)
            if running is not None:
                found = self.machines.report(spec.id, paths)
                if found.state in (MachineState.RUNNING, MachineState.PAUSED, MachineState.NO_SPACE):
                    return found
                running.end()
            return self.machines.launch(spec, paths, resume=True)

    def ensure_stopped(self, machine_id: str, *, grace_seconds: float) -> MachineReport:
        with self.machines.locks.hold(machine_id) as paths:
            self.machines.stop(paths, grace_seconds)
            return self.machines.report(machine_id, paths)

    def reboot(self, spec: MachineSpec, *, hard: bool, grace_seconds: float) -> MachineReport:
        with self.machines.locks.hold(spec.id) as paths:
            self.machines.stop(paths, 0 if hard else grace_seconds)
            return self.machines.launch(spec, paths)

    def pause(self, machine_id: str) -> MachineReport:
        return self._command(machine_id, "stop")

    def unpause(self, machine_id: str) -> MachineReport:
        return self._command(machine_id, "cont")

    def suspend(self, machine_id: str) -> MachineReport:
        with self.machines.locks.hold(machine_id) as paths:
            running = self.machines.process_of(paths)
            if running is not None:
                interrupted = self.machines.locks.reset_interrupt(machine_id)
                machines_suspend.save(paths.qmp, paths.memory, interrupted.is_set)
                running.end()
            elif not paths.memory.exists():
                raise HypervisorError(f"Machine {machine_id} does not run.")
            return self.machines.report(machine_id, paths)

    def rebuild(self, spec: MachineSpec, *, start: bool, keep: frozenset[str] = frozenset()) -> MachineReport:
        with self.machines.locks.hold(spec.id) as paths:
            if start and self.machines.runs_generation(spec, paths):
                return self.machines.report(spec.id, paths)
            self.machines.stop(paths, 0)
            known = self.machines.spec(spec.id)
            if known is None or known.generation != spec.generation:
                for disk in known.disks if known else ():
                    if disk.name not in keep:
                        paths.disk(disk.name).unlink(missing_ok=True)
            return self.machines.provision(spec, paths, start)

    def resize(self, spec: MachineSpec, *, start: bool, grace_seconds: float) -> MachineReport:
        with self.machines.locks.hold(spec.id) as paths:
            before = self.machines.find_spec(spec.id)
            if start and self.machines.runs_generation(spec, paths):
                return self.machines.report(spec.id, paths)
            self.machines.check_free_disk()
            self.machines.stop(paths, grace_seconds)
            kept = self.machines.writable_disks(before, paths)
            try:
                for disk in kept:
                    snapshots.create_checkpoint(disk)
                sizes = {disk.name: disk_bytes(disk) for disk in spec.disks}
                for disk in kept:
                    snapshots.grow(disk, sizes.get(disk.name, 0))
                return self.machines.provision(spec, paths, start)
            except HypervisorError:
                for disk in kept:
                    with contextlib.suppress(HypervisorError):
                        snapshots.restore_checkpoint(disk)
                write(paths.spec, before.model_dump_json().encode())
                raise

    def confirm_resize(self, machine_id: str) -> None:
        with self.machines.locks.hold(machine_id) as paths:
            spec = self.machines.find_spec(machine_id)
            if self.machines.process_of(paths) is not None:
                snapshots.delete_running_checkpoint(paths.qmp, 2 * len(spec.disks))
            else:
                for disk in self.machines.writable_disks(spec, paths):
                    snapshots.delete_checkpoint(disk)

    def revert_resize(self, spec: MachineSpec, *, start: bool) -> MachineReport:
        with self.machines.locks.hold(spec.id) as paths:
            if start and self.machines.runs_generation(spec, paths):
                return self.machines.report(spec.id, paths)
            self.machines.stop(paths, 0)
            for disk in self.machines.writable_disks(spec, paths):
                snapshots.restore_checkpoint(disk)
            return self.machines.provision(spec, paths, start)

    def snapshot(self, spec: MachineSpec, name: str) -> SnapshotFile:
        with self.machines.locks.hold(spec.id) as paths:
            if not paths.spec.exists():
                raise HypervisorError(f"Machine {spec.id} is not here.")
            self.machines.check_free_disk()
            target = paths.snapshot(name)
            root = next(iter(self.machines.writable_disks(spec, paths)), None)
            if root is None:
                raise HypervisorError("The machine has no writable disk.")
            if self.machines.process_of(paths) is not None:
                interrupted = self.machines.locks.reset_interrupt(spec.id)
                size = snapshots.virtual_bytes(root)
                snapshots.copy_running(paths.qmp, size, target, interrupted.is_set)
            else:
                snapshots.copy(root, target)
            return SnapshotFile(path=target, disk_format="qcow2")

    def discard_snapshot(self, machine_id: str, name: str) -> None:
        self.paths.machine(machine_id).snapshot(name).unlink(missing_ok=True)

    def ensure_nics(self, spec: MachineSpec) -> None:
        with self.machines.locks.hold(spec.id) as paths:
            known = self.machines.find_spec(spec.id)
            changed = known.model_copy(update={"nics": spec.nics})
            if self.machines.process_of(paths) is None:
                write(paths.spec, changed.model_dump_json().encode())
                self.segments.claim(spec.id, spec.nics)
                return
            wanted = {nic.port_id for nic in spec.nics}
            run = load_runtime_state(paths)
            slots = hotplug.extend_slots(paths.qmp, run.slots, spec.nics)
            replace(run, slots=slots).save(paths)
            hotplug.unplug(paths.qmp, [number for port, number in slots.items() if port not in wanted])
            self.segments.claim(spec.id, spec.nics)
            identity = machine_identity(self.config.installation, spec.id)
            hotplug.plug(paths.qmp, self.links, slots, spec.nics, identity.uid)
            write(paths.spec, changed.model_dump_json().encode())
            left = {port: number for port, number in slots.items() if port in wanted}
            replace(run, slots=left).save(paths)

    def diagnostics(self, machine_id: str) -> Diagnostics:
        paths = self.paths.machine(machine_id)
        running, spec = self.machines.process_of(paths), self.machines.spec(machine_id)
        if running is None or spec is None:
            raise HypervisorError(f"Machine {machine_id} does not run.")
        started_at = load_runtime_state(paths).started_at.timestamp()
        return machines_diagnostics.query_diagnostics(paths.qmp, running.pid, spec, self.links, started_at)

    def inject_nmi(self, machine_id: str) -> None:
        paths = self.paths.machine(machine_id)
        if self.machines.process_of(paths) is None:
            raise HypervisorError(f"Machine {machine_id} does not run.")
        qmp.execute(paths.qmp, "inject-nmi")

    def interrupt(self, machine_id: str) -> None:
        self.machines.locks.interrupt(machine_id)

    def remove(self, machine_id: str) -> None:
        with self.machines.locks.hold(machine_id) as paths:
            if self.paths.is_owned(machine_id):
                self.machines.stop(paths, 0)
                remove_directory(paths.directory)
            self.machines.release(machine_id)
        self.machines.locks.forget(machine_id)

    def report(self, machine_id: str) -> MachineReport:
        return self.machines.report(machine_id, self.paths.machine(machine_id))

    def reports(self) -> Sequence[MachineReport]:
        return [self.report(machine_id) for machine_id in self.paths.machine_ids()]

    def console_log(self, machine_id: str) -> bytes:
        return read_console_tail(self.paths.machine(machine_id).console)

    def check_console(self, machine_id: str) -> None:
        paths = self.paths.machine(machine_id)
        if not self.paths.is_owned(machine_id) or self.machines.process_of(paths) is None:
            raise HypervisorError(f"Machine {machine_id} does not run.")
        if not load_runtime_state(paths).consoles:
            raise HypervisorError(f"Instance {machine_id} has no consoles before its next hard reboot.")

    def open_console(self, machine_id: str, kind: ConsoleKind) -> socket.socket:
        self.check_console(machine_id)
        paths = self.paths.machine(machine_id)
        return open_screen(paths.qmp) if kind is ConsoleKind.VNC else open_serial(paths.qmp, paths.serial)

    def password(self, machine_id: str) -> bytes:
        return metadata.load_password(self.paths.machine(machine_id))

    def forget_password(self, machine_id: str) -> None:
        metadata.forget_password(self.paths.machine(machine_id))

    def spec(self, machine_id: str) -> MachineSpec | None:
        return self.machines.spec(machine_id)

    # --- migration --------------------------------------------------------------------------------------------------

    def begin_migration(self, spec: MachineSpec, *, live: bool) -> MigrationOffer:
        return self._migrations.begin_migration(spec, live=live)

    def prepare_migration(self, spec: MachineSpec, plan: MigrationPlan) -> MigrationTarget:
        return self._migrations.prepare_migration(spec, plan)

    def perform_migration(
        self, spec: MachineSpec, plan: MigrationPlan, landing: MigrationTarget, *, grace_seconds: float
    ) -> TransferResult:
        return self._migrations.perform_migration(spec, plan, landing, grace_seconds=grace_seconds)

    def finish_migration(self, spec: MachineSpec, plan: MigrationPlan, sent: TransferResult | None) -> bool:
        return self._migrations.finish_migration(spec, plan, sent)

    def cancel_migration(self, spec: MachineSpec, plan: MigrationPlan) -> MachineReport:
        return self._migrations.cancel_migration(spec, plan)

    def migration_progress(self, machine_id: str) -> MigrationProgress | None:
        return self._migrations.migration_progress(machine_id)

    def force_migration_completion(self, machine_id: str) -> None:
        self._migrations.force_migration_completion(machine_id)

    def _command(self, machine_id: str, command: str) -> MachineReport:
        with self.machines.locks.hold(machine_id) as paths:
            self.machines.find_process(machine_id, paths)
            qmp.execute(paths.qmp, command)
            return self.machines.report(machine_id, paths)
