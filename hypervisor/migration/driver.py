"""Migration of machines between hosts: the migration phases of `Hypervisor`, their files and their crash recovery.

`source` and `target` control the two qemu processes over QMP.
"""

import contextlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from hypervisor.api.errors import HypervisorError, ImageUnusable
from hypervisor.api.migration import (
    CONSOLE_BYTES,
    MigrationOffer,
    MigrationPlan,
    MigrationProgress,
    MigrationTarget,
    OfferedDisk,
    TransferResult,
    pack,
    unpack,
)
from hypervisor.api.spec import MachineReport, MachineSpec, disk_bytes
from hypervisor.base import host_facts
from hypervisor.base.paths import MachinePaths, private_directory, remove_directory, write
from hypervisor.base.runtime_state import RuntimeState, load_runtime_state
from hypervisor.machines.console_log import prepend_console, read_console_tail
from hypervisor.machines.launch import QemuLaunch, start_qemu
from hypervisor.machines.machines import Machines
from hypervisor.migration import source, target
from hypervisor.network import neighbor_adverts
from hypervisor.qemu import tls
from hypervisor.storage import snapshots
from hypervisor.storage.disks import DiskFile, create_overlay


class MigrationDriver:
    """Source and target side of migrations on one host. Methods are documented in `Hypervisor`."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._progress: dict[str, MigrationProgress] = {}

    def begin_migration(self, spec: MachineSpec, *, live: bool) -> MigrationOffer:
        if self._machines.paths.shared is not None:
            raise HypervisorError("Hosts that share their disks do not send them to each other.")
        with self._machines.locks.hold(spec.id) as paths:
            known = self._machines.find_spec(spec.id)
            disks = tuple(
                OfferedDisk(name=disk.name, size_bytes=snapshots.virtual_bytes(disk), alone=disk.base is None)
                for disk in self._machines.writable_disks(known, paths)
            )
            if not live:
                return MigrationOffer(disks=disks)
            self._machines.find_process(spec.id, paths)
            run = load_runtime_state(paths)
            machine_type, generation_id = source.query_machine_identity(paths.qmp)
            return MigrationOffer.model_validate(
                {
                    "disks": disks,
                    "accelerator": run.accelerator,
                    "machine_type": machine_type,
                    "processor": self._processor(),
                    "generation_id": generation_id,
                    "slots": run.slots,
                    "config_drive": pack(paths.config_drive.read_bytes()),
                    "consoles": run.consoles,
                }
            )

    def prepare_migration(self, spec: MachineSpec, plan: MigrationPlan) -> MigrationTarget:
        offer = plan.offer
        if offer is None:
            raise HypervisorError("The migration plan has no offer of the source host.")
        if self._machines.paths.shared is not None:
            raise HypervisorError("Hosts that share their disks do not send them to each other.")
        with self._machines.locks.hold(spec.id) as paths:
            if self._machines.process_of(paths) is not None:
                if (awaited := _find_target(paths, plan)) is not None:
                    return awaited
                if not paths.incoming.exists():
                    raise HypervisorError(f"Machine {spec.id} runs on this host.")
            self._check_offer(spec, plan, offer)
            self._machines.check_free_disk()
            self._remove_target(spec.id, paths)
            with ExitStack() as undo:
                undo.callback(self._remove_target, spec.id, paths)
                landed = self._start_target(spec, plan, offer, paths)
                undo.pop_all()
            return landed

    def perform_migration(
        self, spec: MachineSpec, plan: MigrationPlan, landing: MigrationTarget, *, grace_seconds: float
    ) -> TransferResult:
        with self._machines.locks.hold(spec.id) as paths:
            known = self._machines.find_spec(spec.id)
            if not plan.live:
                self._perform_cold(known, plan, landing, paths, grace_seconds)
                return TransferResult()
            self._machines.find_process(spec.id, paths)
            with self._open_source(known, plan, landing, paths) as transfer:
                if not transfer.is_transferred():
                    if not transfer.is_sending_memory():
                        transfer.send_disks()
                    self._machines.segments.mark_migrating(spec.id)
                    transfer.send_memory()
            return TransferResult(console=pack(read_console_tail(paths.console)[-CONSOLE_BYTES:]))

    def finish_migration(self, spec: MachineSpec, plan: MigrationPlan, sent: TransferResult | None) -> bool:
        with self._machines.locks.hold(spec.id) as paths:
            if not paths.incoming.exists():
                known = self._machines.spec(spec.id)
                is_here = known is not None and known.generation == spec.generation
                if is_here and not plan.live and self._machines.process_of(paths) is None:
                    self._machines.provision(spec, paths, plan.start)
                return is_here
            if not plan.live and sent is not None:
                self._machines.stop(paths, 0)
                for disk in self._machines.writable_disks(spec, paths):
                    snapshots.grow(disk, next(disk_bytes(one) for one in spec.disks if one.name == disk.name))
                self._remove_target_files(paths)
                self._machines.provision(spec, paths, plan.start)
                return True
            is_here = plan.live and self._machines.process_of(paths) is not None
            if not is_here or not target.has_received_guest(paths.qmp, is_expected=sent is not None):
                self._remove_target(spec.id, paths)
                return False
            target.close_listeners(paths.qmp)
            self._machines.segments.claim(spec.id, spec.nics)
            neighbor_adverts.send_gateway_advertisements(self._machines.links, spec.nics)
            if sent is not None and sent.console is not None:
                prepend_console(paths.console, unpack(sent.console))
            write(paths.spec, spec.model_dump_json().encode())
            self._remove_target_files(paths)
            return True

    def cancel_migration(self, spec: MachineSpec, plan: MigrationPlan) -> MachineReport:
        with self._machines.locks.hold(spec.id) as paths:
            if plan.live:
                if self._machines.process_of(paths) is not None:
                    source.cancel(paths.qmp)
                    if not plan.paused:
                        source.resume(paths.qmp)
                    self._machines.segments.claim(spec.id, self._machines.find_spec(spec.id).nics)
            elif _is_outgoing(paths, plan) or self._machines.process_of(paths) is None:
                self._machines.stop(paths, 0)
                paths.outgoing.unlink(missing_ok=True)
                if plan.start:
                    self._machines.launch(self._machines.find_spec(spec.id), paths)
            tls.remove_key(paths.key)
            return self._machines.report(spec.id, paths)

    def migration_progress(self, machine_id: str) -> MigrationProgress | None:
        return self._progress.get(machine_id)

    def force_migration_completion(self, machine_id: str) -> None:
        source.force_migration_completion(self._machines.paths.machine(machine_id).qmp)

    def _perform_cold(
        self,
        known: MachineSpec,
        plan: MigrationPlan,
        landing: MigrationTarget,
        paths: MachinePaths,
        grace_seconds: float,
    ) -> None:
        """Stop the guest and send its disks from a qemu without a guest. The local disks are kept."""
        if not _is_outgoing(paths, plan) or self._machines.process_of(paths) is None:
            self._machines.stop(paths, grace_seconds)
            self._machines.segments.mark_migrating(known.id)
            write(paths.outgoing, plan.id.encode())
            self._start_without_guest(known, paths, self._machines.writable_disks(known, paths), frozen=True)
        with self._open_source(known, plan, landing, paths) as transfer:
            transfer.send_disks()
            transfer.end_mirrors()
        self._machines.stop(paths, 0)

    @contextlib.contextmanager
    def _open_source(
        self, known: MachineSpec, plan: MigrationPlan, landing: MigrationTarget, paths: MachinePaths
    ) -> Iterator[source.MigrationSource]:
        interrupted = self._machines.locks.reset_interrupt(known.id)
        tls.write_key(paths.key, plan.key)
        try:
            yield source.MigrationSource(
                paths.qmp,
                paths.key,
                landing,
                self._machines.config.uplink,
                {file.name: f"disk{number}" for number, file in self._numbered_disks(known, paths, all_of=plan.live)},
                interrupted.is_set,
                lambda progress: self._progress.__setitem__(known.id, progress),
            )
        except HypervisorError:
            with contextlib.suppress(HypervisorError):  # cancel_migration repeats it
                source.cancel(paths.qmp)
            raise
        finally:
            self._progress.pop(known.id, None)
            tls.remove_key(paths.key)

    def _numbered_disks(self, spec: MachineSpec, paths: MachinePaths, *, all_of: bool) -> list[tuple[int, DiskFile]]:
        """Return the disks to send with their indexes in the command line."""
        files = [file for disk in spec.disks for file in self._machines.disks.ensure(disk, paths)]
        present = files if all_of else self._machines.writable_disks(spec, paths)
        return [(number, file) for number, file in enumerate(present) if not file.read_only]

    def _check_offer(self, spec: MachineSpec, plan: MigrationPlan, offer: MigrationOffer) -> None:
        """Raise HypervisorError when this host cannot run the offered machine or must not accept it."""
        for disk in offer.disks:
            wanted = next((one for one in spec.disks if one.name == disk.name), None)
            image_bytes = wanted.image.virtual_size_bytes if wanted is not None and wanted.image else 0
            if wanted is not None and disk.size_bytes > max(disk_bytes(wanted), image_bytes):
                raise HypervisorError(f"The disk {disk.name} is larger than its spec allows.")
        offered = {disk.name for disk in offer.disks}
        for one in spec.disks:
            if one.image is not None and one.image.disk_format != "iso" and one.name not in offered:
                raise HypervisorError(f"The disk {one.name} is missing on the source host.")
        if not plan.live:
            return
        if offer.accelerator is None or offer.machine_type is None or offer.config_drive is None:
            raise HypervisorError("The machine does not run on the source host.")
        if offer.accelerator == "kvm":
            if self._machines.accelerators.select().accelerator != "kvm":
                raise HypervisorError("The guest runs under KVM, and this host has none.")
            if offer.processor != self._processor():
                raise HypervisorError(
                    f"The guest sees the processor {offer.processor!r}, this host has {self._processor()!r}: "
                    "give all hosts the same CPU model."
                )

    def _processor(self) -> str:
        """Return the CPU model that guests see under KVM."""
        return self._machines.config.cpu_model or host_facts.cpu_model()

    def _start_target(
        self, spec: MachineSpec, plan: MigrationPlan, offer: MigrationOffer, paths: MachinePaths
    ) -> MigrationTarget:
        private_directory(paths.directory)
        write(paths.incoming, b"{}")
        self._machines.use_images(spec)
        files = self._create_target_disks(spec, offer, paths)
        whole = frozenset(file.name for file in files if file.base is None)
        tls.write_key(paths.key, plan.key)
        write(paths.spec, spec.model_dump_json().encode())
        if plan.live:
            self._machines.segments.claim(spec.id, spec.nics, is_incoming=True)
            write(paths.config_drive, unpack(offer.config_drive or ""))
            files.append(DiskFile(name="config", path=paths.config_drive, format="raw", read_only=True))
            machine_type = offer.machine_type or "q35"
            run = RuntimeState(offer.accelerator, datetime.now(UTC), offer.slots, machine_type, offer.consoles)
            run.save(paths)
            start_qemu(
                QemuLaunch(
                    spec,
                    paths,
                    files,
                    accelerator=run.accelerator or "tcg",
                    program=self._machines.config.qemu,
                    slots=run.slots,
                    machine_type=run.machine_type,
                    processor=self._machines.config.cpu_model,
                    generation_id=offer.generation_id or "auto",
                    key_directory=paths.key,
                    consoles=run.consoles,
                ),
                self._machines.links,
            )
        else:
            self._start_without_guest(spec, paths, files, key_directory=paths.key)
        address = self._machines.config.migration_address or self._machines.links.underlay_address()
        exports = {file.name: f"disk{number}" for number, file in enumerate(files) if not file.read_only}
        disk_port, memory_port = target.listen(
            paths.qmp, address, self._machines.config.migration_ports, exports, memory=plan.live
        )
        landed = MigrationTarget(address=address, disk_port=disk_port, memory_port=memory_port, whole=whole)
        write(paths.incoming, json.dumps({"plan": plan.id, "landing": landed.model_dump(mode="json")}).encode())
        return landed

    def _create_target_disks(self, spec: MachineSpec, offer: MigrationOffer, paths: MachinePaths) -> list[DiskFile]:
        """Create disks of the offered sizes on the same images; without its image a disk is transferred whole."""
        offered = {disk.name: disk for disk in offer.disks}
        files: list[DiskFile] = []
        for disk in spec.disks:
            one = offered.get(disk.name)
            if one is not None:
                base = None
                if disk.image is not None and not one.alone:
                    with contextlib.suppress(ImageUnusable):
                        base = self._machines.disks.ensure_base(disk.image)
                create_overlay(paths.disk(disk.name), one.size_bytes, base)
            files += self._machines.disks.ensure(disk, paths)
        return files

    def _start_without_guest(
        self,
        spec: MachineSpec,
        paths: MachinePaths,
        files: list[DiskFile],
        *,
        key_directory: Path | None = None,
        frozen: bool = False,
    ) -> None:
        """Start a qemu that only opens the disks to send or receive them; no guest runs in it."""
        alone = {"nics": (), "topology": None, "cpu_limits": None, "disk_limits": None}
        bare = spec.model_copy(update={**alone, "vcpus": 1, "memory_mib": 32})
        start_qemu(
            QemuLaunch(
                bare,
                paths,
                files,
                accelerator="tcg",
                program=self._machines.config.qemu,
                slots={},
                key_directory=key_directory,
                frozen=frozen,
            ),
            self._machines.links,
        )

    def _remove_target_files(self, paths: MachinePaths) -> None:
        tls.remove_key(paths.key)
        paths.incoming.unlink(missing_ok=True)

    def _remove_target(self, machine_id: str, paths: MachinePaths) -> None:
        """Remove everything of an incoming machine."""
        self._machines.stop(paths, 0)
        remove_directory(paths.directory)
        self._machines.release(machine_id)


def _is_outgoing(paths: MachinePaths, plan: MigrationPlan) -> bool:
    """Whether this migration sends or has sent the disks of the machine."""
    return paths.outgoing.exists() and paths.outgoing.read_text() == plan.id


def _find_target(paths: MachinePaths, plan: MigrationPlan) -> MigrationTarget | None:
    """Return the target that was already prepared for this migration, or None."""
    try:
        document = json.loads(paths.incoming.read_bytes())
    except FileNotFoundError:
        return None
    return MigrationTarget.model_validate(document["landing"]) if document.get("plan") == plan.id else None
