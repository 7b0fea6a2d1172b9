"""A host that runs machines with qemu: puts disks, links, config drive and process together, and takes them apart."""

import contextlib
import json
import logging
import os
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv6Address
from pathlib import Path

from pydantic import ValidationError

from hypervisor import (
    announcing,
    checkpoints,
    computer,
    counters,
    credentials,
    hotplug,
    landing,
    metadata,
    process,
    qmp,
    sending,
    suspending,
    throttling,
)
from hypervisor.accelerator import Accelerators, Wanted
from hypervisor.config_drive import config_drive
from hypervisor.console import console_tail, prepend, trim_console
from hypervisor.disks import DiskFile, Disks, create_overlay, disk_bytes
from hypervisor.errors import HypervisorError, ImageUnusable, LaunchFailed
from hypervisor.machine import Diagnostics, HostReport, MachineReport, MachineSpec, MachineState, SnapshotFile
from hypervisor.migration import CONSOLE_BYTES, Landing, Offer, OfferedDisk, Plan, Progress, Sent, pack, unpack
from hypervisor.nat64 import Nat64, Translator
from hypervisor.network import Links, forward_packets
from hypervisor.paths import HostPaths, MachinePaths, private_directory, remove_directory, remove_remains, write
from hypervisor.process import Process
from hypervisor.protocol import ImageSource
from hypervisor.qemu import group_name, machine_identity, start_qemu
from hypervisor.radvd import RouterAdvertiser, Timing
from hypervisor.remote_console import ConsoleKind, open_screen, open_serial
from hypervisor.segments import Segments
from hypervisor.spoofing import SpoofingGuard

log = logging.getLogger(__name__)

# A guest that KVM cannot run falls over in its boot loader or early kernel.
DOUBTFUL_SECONDS = 60.0


@dataclass(frozen=True)
class HostConfig:
    """What the operator decides about a host.

    `installation` is four hex digits, different for each installation on one computer: link names begin with it.
    `host_name` is different for each host. `peers` are the addresses of all hosts, for an underlay without multicast.
    `forward` lets the kernel pass guests' packets on to the uplink, which `nat64` needs as well. Guests are told
    `dns_servers`, or the DNS64 resolver where there is one and the operator has named no other. Guests come from other
    hosts by `migration_address`, or by the uplink's, on two of `migration_ports`. `cpu_model` is what guests see under
    KVM: one that all hosts have lets them move between hosts whose processors differ. All hosts may have their machines
    in one directory, `shared_machines`: then what a dead host leaves is started elsewhere, disks and all.
    """

    state: Path
    installation: str
    host_name: str
    uplink: str = "lo"
    peers: tuple[IPv6Address, ...] = ()
    isolate_guests: bool = False
    forward: bool = False
    nat64: Nat64 | None = None
    accelerator: Wanted = "auto"
    dns_servers: tuple[IPv6Address, ...] = ()
    dns_search: tuple[str, ...] = ()
    router_timing: Timing = field(default_factory=Timing)
    reserved_memory_mib: int = 512
    qemu: str = "qemu-system-x86_64"
    migration_ports: range = range(49152, 49216)
    migration_address: IPv6Address | None = None
    cpu_model: str = ""
    shared_machines: Path | None = None


@dataclass(frozen=True)
class Run:
    """What is true of one run of a machine only: accelerator, time of start, slot of each port, main board,
    and whether it has consoles."""

    accelerator: str | None
    started_at: datetime
    slots: dict[str, int]
    machine_type: str = "q35"
    consoles: bool = False

    def document(self) -> bytes:
        """As it is kept in a file."""
        return json.dumps({**asdict(self), "started_at": self.started_at.timestamp()}).encode()


class QemuHypervisor:
    """Implements `Hypervisor`. Files are the only memory: a second one, started later, finds what a first one left."""

    def __init__(self, config: HostConfig, images: ImageSource) -> None:
        if not re.fullmatch(r"[0-9a-f]{4}", config.installation):
            raise ValueError(f"an installation is four hex digits, not {config.installation!r}")
        self.config = config
        self.paths = HostPaths(config.state.resolve(), config.shared_machines, config.host_name)
        self.links = Links(config.installation, config.uplink, host_name=config.host_name, peers=config.peers)
        self.guard = SpoofingGuard(config.installation, self.links.tap, isolate=config.isolate_guests)
        self.router = RouterAdvertiser(self.paths, config.router_timing)
        self.translator = Translator(
            config.installation, self.paths, self.links, config.nat64, lambda: self.segments.mapped()
        )
        resolvers = config.dns_servers or ((self.translator.resolver,) if config.nat64 else ())
        self.segments = Segments(self.links, self.guard, self.router, resolvers, config.dns_search)
        self.disks = Disks(self.paths.bases, images)
        self.accelerators = Accelerators(config.accelerator, self.paths.accelerator, config.qemu)
        self._locks: dict[str, threading.RLock] = {}
        self._locks_guard = threading.Lock()
        self._hurries: dict[str, threading.Event] = defaultdict(threading.Event)
        self._images: dict[str, frozenset[str]] = {}
        self._version: int | None = None
        self._machine_type: str | None = None
        self._progress: dict[str, Progress] = {}
        for machine_id in self.paths.machine_ids():
            spec = self.spec(machine_id)
            if spec is not None:
                self._images[machine_id] = _image_ids(spec)
                self.segments.remember(machine_id, spec.nics)

    # --- the host ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise HostUnfit, saying what to do, when this computer cannot run machines for this user."""
        computer.check(self.config.qemu)
        self.accelerators.choice()
        self.translator.check()

    def describe(self) -> HostReport:
        choice = self.accelerators.choice()
        if self._version is None:
            self._version = computer.qemu_version(self.config.qemu)
        return HostReport(
            name=self.config.host_name,
            vcpus=computer.processors(),
            memory_mib=max(0, computer.memory_mib() - self.config.reserved_memory_mib),
            disk_gib=computer.disk_gib(self.paths.state),
            accelerator=choice.accelerator,
            accelerator_reason=choice.reason,
            hypervisor_version=self._version,
            cpu_model=computer.processor_model(),
        )

    def repair(self) -> None:
        remove_remains(self.paths.machines)
        running = []
        for machine_id in self.paths.machine_ids():
            paths = self.paths.machine(machine_id)
            trim_console(paths.console)
            if self._process(paths) is not None:
                running.append(machine_id)
                self._mend_if_idle(machine_id)
        self.segments.repair(running)
        if self.config.forward:
            forward_packets()
        try:
            self.translator.ensure()
        except HypervisorError as error:
            log.error("Guests have no way to IPv4: %s", error)

    def evict_images(self, in_use: frozenset[str]) -> None:
        self.disks.evict(lambda image_id: image_id in in_use or self._is_claimed(image_id))

    def close_down(self) -> None:
        self.segments.close_down()
        self.translator.close_down()

    def close(self) -> None:
        """Let go of what this object holds. Machines, links and radvd go on."""
        self.links.close()

    # --- machines ---------------------------------------------------------------------------------------------------

    def ensure_running(self, spec: MachineSpec) -> MachineReport:
        with self._machine(spec.id) as paths:
            running = self._process(paths)
            if running is not None:
                found = self._look(spec.id, paths)
                if found.state in (MachineState.RUNNING, MachineState.PAUSED):
                    return found
                running.end()
            return self._launch(spec, paths, go_on=True)

    def ensure_stopped(self, machine_id: str, *, grace_seconds: float) -> MachineReport:
        with self._machine(machine_id) as paths:
            self._stop(paths, grace_seconds)
            return self._look(machine_id, paths)

    def reboot(self, spec: MachineSpec, *, hard: bool, grace_seconds: float) -> MachineReport:
        with self._machine(spec.id) as paths:
            self._stop(paths, 0 if hard else grace_seconds)
            return self._launch(spec, paths)

    def pause(self, machine_id: str) -> MachineReport:
        return self._command(machine_id, "stop")

    def unpause(self, machine_id: str) -> MachineReport:
        return self._command(machine_id, "cont")

    def suspend(self, machine_id: str) -> MachineReport:
        with self._machine(machine_id) as paths:
            running = self._process(paths)
            if running is not None:
                hurry = self._waiting(machine_id)
                suspending.save(paths.qmp, paths.memory, hurry.is_set)
                running.end()
            elif not paths.memory.exists():
                raise HypervisorError(f"Machine {machine_id} does not run.")
            return self._look(machine_id, paths)

    def rebuild(self, spec: MachineSpec, *, start: bool, keep: frozenset[str] = frozenset()) -> MachineReport:
        with self._machine(spec.id) as paths:
            known = self.spec(spec.id)
            done = known is not None and known.generation == spec.generation
            if done and start and self._process(paths) is not None:
                return self._look(spec.id, paths)
            self._stop(paths, 0)
            if not done:
                for disk in known.disks if known else ():
                    if disk.name not in keep:
                        paths.disk(disk.name).unlink(missing_ok=True)
            return self._put(spec, paths, start)

    def resize(self, spec: MachineSpec, *, start: bool, grace_seconds: float) -> MachineReport:
        with self._machine(spec.id) as paths:
            before = self.spec(spec.id)
            if before is None:
                raise HypervisorError(f"Machine {spec.id} is not here.")
            if before.generation == spec.generation and start and self._process(paths) is not None:
                return self._look(spec.id, paths)
            self._stop(paths, grace_seconds)
            kept = self._own_disks(before, paths)
            try:
                for disk in kept:
                    checkpoints.keep(disk)
                sizes = {disk.name: disk_bytes(disk) for disk in spec.disks}
                for disk in kept:
                    checkpoints.grow(disk, sizes.get(disk.name, 0))
                return self._put(spec, paths, start)
            except HypervisorError:
                for disk in kept:
                    with contextlib.suppress(HypervisorError):
                        checkpoints.restore(disk)
                write(paths.spec, before.model_dump_json().encode())
                raise

    def confirm_resize(self, machine_id: str) -> None:
        with self._machine(machine_id) as paths:
            spec = self.spec(machine_id)
            if spec is None:
                raise HypervisorError(f"Machine {machine_id} is not here.")
            if self._process(paths) is not None:
                checkpoints.forget_running(paths.qmp, 2 * len(spec.disks))
            else:
                for disk in self._own_disks(spec, paths):
                    checkpoints.forget(disk)

    def revert_resize(self, spec: MachineSpec, *, start: bool) -> MachineReport:
        with self._machine(spec.id) as paths:
            known = self.spec(spec.id)
            if known is not None and known.generation == spec.generation and start and self._process(paths) is not None:
                return self._look(spec.id, paths)
            self._stop(paths, 0)
            for disk in self._own_disks(spec, paths):
                checkpoints.restore(disk)
            return self._put(spec, paths, start)

    def snapshot(self, spec: MachineSpec, name: str) -> SnapshotFile:
        with self._machine(spec.id) as paths:
            if not paths.spec.exists():
                raise HypervisorError(f"Machine {spec.id} is not here.")
            target = paths.snapshot(name)
            root = next(iter(self._own_disks(spec, paths)), None)
            if root is None:
                raise HypervisorError("The machine has no disk of its own.")
            if self._process(paths) is not None:
                hurry = self._waiting(spec.id)
                size = checkpoints.virtual_bytes_shared(root)
                checkpoints.copy_running(paths.qmp, size, target, hurry.is_set)
            else:
                checkpoints.copy(root, target)
            return SnapshotFile(path=target, disk_format="qcow2")

    def discard_snapshot(self, machine_id: str, name: str) -> None:
        self.paths.machine(machine_id).snapshot(name).unlink(missing_ok=True)

    def ensure_nics(self, spec: MachineSpec) -> None:
        with self._machine(spec.id) as paths:
            known = self.spec(spec.id)
            if known is None:
                raise HypervisorError(f"Machine {spec.id} is not here.")
            changed = known.model_copy(update={"nics": spec.nics})
            if self._process(paths) is None:
                write(paths.spec, changed.model_dump_json().encode())
                self.segments.claim(spec.id, spec.nics)
                return
            wanted = {nic.port_id for nic in spec.nics}
            run = _run(paths)
            slots = hotplug.changed_slots(paths.qmp, run.slots, spec.nics)
            write(paths.run, replace(run, slots=slots).document())
            hotplug.unplug(paths.qmp, [number for port, number in slots.items() if port not in wanted])
            self.segments.claim(spec.id, spec.nics)
            identity = machine_identity(self.config.installation, spec.id)
            hotplug.plug(paths.qmp, self.links, slots, spec.nics, identity.uid)
            write(paths.spec, changed.model_dump_json().encode())
            left = {port: number for port, number in slots.items() if port in wanted}
            write(paths.run, replace(run, slots=left).document())

    def diagnostics(self, machine_id: str) -> Diagnostics:
        paths = self.paths.machine(machine_id)
        running, spec = self._process(paths), self.spec(machine_id)
        if running is None or spec is None:
            raise HypervisorError(f"Machine {machine_id} does not run.")
        started_at = _run(paths).started_at.timestamp()
        return counters.diagnostics(paths.qmp, running.pid, spec, self.links, started_at)

    def hurry(self, machine_id: str) -> None:
        self._hurries[machine_id].set()

    def remove(self, machine_id: str) -> None:
        with self._machine(machine_id) as paths:
            if self.paths.is_ours(machine_id):
                self._stop(paths, 0)
                remove_directory(paths.directory)
            self._release(machine_id)
        self._hurries.pop(machine_id, None)
        with self._locks_guard:
            self._locks.pop(machine_id, None)

    def report(self, machine_id: str) -> MachineReport:
        return self._look(machine_id, self.paths.machine(machine_id))

    def reports(self) -> Sequence[MachineReport]:
        return [self.report(machine_id) for machine_id in self.paths.machine_ids()]

    def console_log(self, machine_id: str) -> bytes:
        return console_tail(self.paths.machine(machine_id).console)

    def open_console(self, machine_id: str, kind: ConsoleKind) -> socket.socket:
        paths = self.paths.machine(machine_id)
        if not self.paths.is_ours(machine_id) or self._process(paths) is None:
            raise HypervisorError(f"Machine {machine_id} does not run.")
        if not _run(paths).consoles:
            raise HypervisorError(f"Instance {machine_id} has no consoles before its next hard reboot.")
        return open_screen(paths.qmp) if kind is ConsoleKind.VNC else open_serial(paths.qmp, paths.serial)

    def password(self, machine_id: str) -> bytes:
        return metadata.password(self.paths.machine(machine_id))

    def forget_password(self, machine_id: str) -> None:
        metadata.forget_password(self.paths.machine(machine_id))

    def spec(self, machine_id: str) -> MachineSpec | None:
        path = self.paths.machine(machine_id).spec
        try:
            return MachineSpec.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            log.exception("%s is not the document of a machine", path)
            return None

    # --- from and to other hosts ------------------------------------------------------------------------------------

    def offer(self, spec: MachineSpec, *, live: bool) -> Offer:
        if self.paths.shared is not None:
            raise HypervisorError("Hosts that share their disks do not send them to each other.")
        with self._machine(spec.id) as paths:
            known = self._known(spec.id)
            disks = tuple(
                OfferedDisk(name=disk.name, size_bytes=checkpoints.virtual_bytes_shared(disk), alone=disk.base is None)
                for disk in self._own_disks(known, paths)
            )
            if not live:
                return Offer(disks=disks)
            if self._process(paths) is None:
                raise HypervisorError(f"Machine {spec.id} does not run.")
            run = _run(paths)
            machine_type, generation_id = sending.described(paths.qmp)
            return Offer.model_validate(
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

    def prepare_landing(self, spec: MachineSpec, plan: Plan) -> Landing:
        offer = plan.offer
        if offer is None:
            raise HypervisorError("Nothing is known of the machine that is to come.")
        if self.paths.shared is not None:
            raise HypervisorError("Hosts that share their disks do not send them to each other.")
        with self._machine(spec.id) as paths:
            if self._process(paths) is not None:
                if (awaited := _awaited(paths, plan)) is not None:
                    return awaited
                if not paths.incoming.exists():
                    raise HypervisorError(f"Machine {spec.id} runs on this host.")
            self._check_offer(spec, plan, offer)
            self._vanish(spec.id, paths)
            with ExitStack() as undo:
                undo.callback(self._vanish, spec.id, paths)
                landed = self._await(spec, plan, offer, paths)
                undo.pop_all()
            return landed

    def send(self, spec: MachineSpec, plan: Plan, landing: Landing, *, grace_seconds: float) -> Sent:
        with self._machine(spec.id) as paths:
            known = self._known(spec.id)
            if not plan.live:
                self._send_cold(known, plan, landing, paths, grace_seconds)
                return Sent()
            if self._process(paths) is None:
                raise HypervisorError(f"Machine {spec.id} does not run.")
            with self._sender(known, plan, landing, paths) as sender:
                if not sender.has_left():
                    if not sender.is_leaving():
                        sender.send_disks()
                    sender.send_memory()
            return Sent(console=pack(console_tail(paths.console)[-CONSOLE_BYTES:]))

    def take_over(self, spec: MachineSpec, plan: Plan, sent: Sent | None) -> bool:
        with self._machine(spec.id) as paths:
            if not paths.incoming.exists():
                known = self.spec(spec.id)
                is_here = known is not None and known.generation == spec.generation
                if is_here and not plan.live and self._process(paths) is None:
                    self._put(spec, paths, plan.start)
                return is_here
            if not plan.live and sent is not None:
                self._stop(paths, 0)
                for disk in self._own_disks(spec, paths):
                    checkpoints.grow(disk, next(disk_bytes(one) for one in spec.disks if one.name == disk.name))
                self._landed(paths)
                self._put(spec, paths, plan.start)
                return True
            is_here = plan.live and self._process(paths) is not None
            if not is_here or not landing.has_arrived(paths.qmp, is_expected=sent is not None):
                self._vanish(spec.id, paths)
                return False
            landing.settle(paths.qmp)
            announcing.announce_router(self.links, spec.nics)
            if sent is not None and sent.console is not None:
                prepend(paths.console, unpack(sent.console))
            write(paths.spec, spec.model_dump_json().encode())
            self._landed(paths)
            return True

    def stay(self, spec: MachineSpec, plan: Plan) -> MachineReport:
        with self._machine(spec.id) as paths:
            if plan.live:
                if self._process(paths) is not None:
                    sending.give_up(paths.qmp)
                    if not plan.paused:
                        sending.go_on(paths.qmp)
            elif _is_outgoing(paths, plan):
                self._stop(paths, 0)
                paths.outgoing.unlink()
                if plan.start:
                    self._launch(self._known(spec.id), paths)
            credentials.forget(paths.key)
            return self._look(spec.id, paths)

    def progress(self, machine_id: str) -> Progress | None:
        return self._progress.get(machine_id)

    def end_soon(self, machine_id: str) -> None:
        sending.end_soon(self.paths.machine(machine_id).qmp)

    def _send_cold(
        self, known: MachineSpec, plan: Plan, landing: Landing, paths: MachinePaths, grace_seconds: float
    ) -> None:
        """The guest is off and all of its disks are there; it stays off, and its disks stay."""
        if not _is_outgoing(paths, plan) or self._process(paths) is None:
            self._stop(paths, grace_seconds)
            write(paths.outgoing, plan.id.encode())
            self._start_bare(known, paths, self._own_disks(known, paths), frozen=True)
        with self._sender(known, plan, landing, paths) as sender:
            sender.send_disks()
            sender.end_mirrors()
        self._stop(paths, 0)

    @contextlib.contextmanager
    def _sender(
        self, known: MachineSpec, plan: Plan, landing: Landing, paths: MachinePaths
    ) -> Iterator[sending.Sender]:
        hurry = self._waiting(known.id)
        credentials.keep(paths.key, plan.key)
        try:
            yield sending.Sender(
                paths.qmp,
                paths.key,
                landing,
                self.config.uplink,
                {file.name: f"disk{number}" for number, file in self._numbered(known, paths, all_of=plan.live)},
                hurry.is_set,
                lambda progress: self._progress.__setitem__(known.id, progress),
            )
        except HypervisorError:
            with contextlib.suppress(HypervisorError):  # whoever comes later does it again
                sending.give_up(paths.qmp)
            raise
        finally:
            self._progress.pop(known.id, None)
            credentials.forget(paths.key)

    def _numbered(self, spec: MachineSpec, paths: MachinePaths, *, all_of: bool) -> list[tuple[int, DiskFile]]:
        """The disks that are sent, with their places in the command line."""
        files = [file for disk in spec.disks for file in self.disks.ensure(disk, paths)]
        present = files if all_of else self._own_disks(spec, paths)
        return [(number, file) for number, file in enumerate(present) if not file.read_only]

    def _check_offer(self, spec: MachineSpec, plan: Plan, offer: Offer) -> None:
        """Raises HypervisorError when this host cannot go on with that machine, or should not."""
        for disk in offer.disks:
            wanted = next((one for one in spec.disks if one.name == disk.name), None)
            image_bytes = wanted.image.virtual_size_bytes if wanted is not None and wanted.image else 0
            if wanted is not None and disk.size_bytes > max(disk_bytes(wanted), image_bytes):
                raise HypervisorError(f"The disk {disk.name} is larger than it should be.")
        offered = {disk.name for disk in offer.disks}
        for one in spec.disks:
            if one.image is not None and one.image.disk_format != "iso" and one.name not in offered:
                raise HypervisorError(f"The disk {one.name} is not where the machine comes from.")
        if not plan.live:
            return
        if offer.accelerator is None or offer.machine_type is None or offer.config_drive is None:
            raise HypervisorError("The machine does not run where it comes from.")
        if offer.accelerator == "kvm":
            if self.accelerators.choice().accelerator != "kvm":
                raise HypervisorError("The guest runs under KVM, and this host has none.")
            if offer.processor != self._processor():
                raise HypervisorError(
                    f"The guest sees the processor {offer.processor!r}, this host has {self._processor()!r}: "
                    "give all hosts the same CPU model."
                )

    def _processor(self) -> str:
        """What a guest sees of the processor, apart from what it is emulated."""
        return self.config.cpu_model or computer.processor_model()

    def _await(self, spec: MachineSpec, plan: Plan, offer: Offer, paths: MachinePaths) -> Landing:
        private_directory(paths.directory)
        write(paths.incoming, b"{}")
        self._images[spec.id] = _image_ids(spec)
        files = self._landing_disks(spec, offer, paths)
        whole = frozenset(file.name for file in files if file.base is None)
        credentials.keep(paths.key, plan.key)
        write(paths.spec, spec.model_dump_json().encode())
        if plan.live:
            self.segments.claim(spec.id, spec.nics)
            write(paths.config_drive, unpack(offer.config_drive or ""))
            files.append(DiskFile(name="config", path=paths.config_drive, format="raw", read_only=True))
            machine_type = offer.machine_type or "q35"
            run = Run(offer.accelerator, datetime.now(UTC), offer.slots, machine_type, offer.consoles)
            write(paths.run, run.document())
            start_qemu(
                spec,
                paths,
                files,
                self.links,
                accelerator=run.accelerator or "tcg",
                program=self.config.qemu,
                slots=run.slots,
                machine=run.machine_type,
                processor=self.config.cpu_model,
                generation_id=offer.generation_id or "auto",
                key_directory=paths.key,
                consoles=run.consoles,
            )
        else:
            self._start_bare(spec, paths, files, key_directory=paths.key)
        address = self.config.migration_address or self.links.underlay_address()
        exports = {file.name: f"disk{number}" for number, file in enumerate(files) if not file.read_only}
        disk_port, memory_port = landing.listen(
            paths.qmp, address, self.config.migration_ports, exports, memory=plan.live
        )
        landed = Landing(address=address, disk_port=disk_port, memory_port=memory_port, whole=whole)
        write(paths.incoming, json.dumps({"plan": plan.id, "landing": landed.model_dump(mode="json")}).encode())
        return landed

    def _landing_disks(self, spec: MachineSpec, offer: Offer, paths: MachinePaths) -> list[DiskFile]:
        """Disks of the offered sizes, on the same images; where an image is gone it is sent with the disk."""
        offered = {disk.name: disk for disk in offer.disks}
        files: list[DiskFile] = []
        for disk in spec.disks:
            one = offered.get(disk.name)
            if one is not None:
                base = None
                if disk.image is not None and not one.alone:
                    with contextlib.suppress(ImageUnusable):
                        base = self.disks.ensure_base(disk.image)
                create_overlay(paths.disk(disk.name), one.size_bytes, base)
            files += self.disks.ensure(disk, paths)
        return files

    def _start_bare(
        self,
        spec: MachineSpec,
        paths: MachinePaths,
        files: list[DiskFile],
        *,
        key_directory: Path | None = None,
        frozen: bool = False,
    ) -> None:
        """A qemu that only has the disks open, to send or to receive them: no guest will run in it."""
        alone = {"nics": (), "topology": None, "cpu_limits": None, "disk_limits": None}
        bare = spec.model_copy(update={**alone, "vcpus": 1, "memory_mib": 32})
        start_qemu(
            bare,
            paths,
            files,
            self.links,
            accelerator="tcg",
            program=self.config.qemu,
            slots={},
            key_directory=key_directory,
            frozen=frozen,
        )

    def _landed(self, paths: MachinePaths) -> None:
        credentials.forget(paths.key)
        paths.incoming.unlink(missing_ok=True)

    def _vanish(self, machine_id: str, paths: MachinePaths) -> None:
        """Nothing of a machine that was awaited is left."""
        self._stop(paths, 0)
        remove_directory(paths.directory)
        self._release(machine_id)

    def _known(self, machine_id: str) -> MachineSpec:
        known = self.spec(machine_id)
        if known is None:
            raise HypervisorError(f"Machine {machine_id} is not here.")
        return known

    # --- starting and ending ----------------------------------------------------------------------------------------

    def _put(self, spec: MachineSpec, paths: MachinePaths, start: bool) -> MachineReport:
        """Start a machine that does not run, or only have everything ready for its start."""
        if start:
            return self._launch(spec, paths)
        private_directory(paths.directory)
        self.paths.own(spec.id, self.config.host_name)
        self._images[spec.id] = _image_ids(spec)
        self.segments.claim(spec.id, spec.nics)
        self._ensure_disks(spec, paths)
        write(paths.spec, spec.model_dump_json().encode())
        return self._look(spec.id, paths)

    def _launch(
        self, spec: MachineSpec, paths: MachinePaths, accelerator: str | None = None, *, go_on: bool = False
    ) -> MachineReport:
        """Start a machine that does not run. Keeps the disks it has; leaves nothing new behind when it fails.

        With `go_on` a suspended guest goes on. Its memory is good once: whoever comes after a crash boots the guest,
        whose disk may have changed since.
        """
        accelerator = accelerator or self.accelerators.choice().accelerator
        is_new = not paths.spec.exists()
        with ExitStack() as undo:
            if is_new:
                undo.callback(self._release, spec.id)
                undo.callback(remove_directory, paths.directory)
            private_directory(paths.directory)
            undo.callback(self.paths.own, spec.id, self.paths.owner(spec.id))
            self.paths.own(spec.id, self.config.host_name)
            write(paths.spec, spec.model_dump_json().encode())
            self._images[spec.id] = _image_ids(spec)
            self.segments.claim(spec.id, spec.nics)
            disks = self._ensure_disks(spec, paths)
            memory = _take_memory(paths) if go_on else None
            if memory is None or not paths.config_drive.exists():
                write(paths.config_drive, config_drive(self.segments.told(spec)))
            before = _run(paths)
            slots = before.slots if memory is not None else hotplug.fresh_slots(spec.nics)
            accelerator = (memory and before.accelerator) or accelerator
            machine_type = before.machine_type if memory is not None else self._newest_machine_type()
            consoles = before.consoles if memory is not None else True
            run = Run(accelerator, datetime.now(UTC), slots, machine_type, consoles)
            write(paths.run, run.document())
            try:
                self._start(spec, paths, disks, run, memory)
            except LaunchFailed as error:
                if memory is not None:
                    os.rename(memory, paths.memory)
                    raise
                if accelerator != "kvm" or not _is_about_kvm(error) or not self.accelerators.distrust(str(error)):
                    raise
                log.warning("%s The guest is started under TCG, as all later ones are.", error)
                accelerator = "tcg"
                run = replace(run, accelerator=accelerator)
                write(paths.run, run.document())
                self._start(spec, paths, disks, run, None)
            if memory is not None:
                memory.unlink(missing_ok=True)
            undo.pop_all()
        if accelerator == "kvm":
            self._watch(spec.id)
        started_at = _run(paths).started_at
        return MachineReport(id=spec.id, state=MachineState.RUNNING, accelerator=accelerator, started_at=started_at)

    def _start(
        self, spec: MachineSpec, paths: MachinePaths, disks: list[DiskFile], run: Run, memory: Path | None
    ) -> None:
        start_qemu(
            spec,
            paths,
            disks,
            self.links,
            accelerator=run.accelerator or "tcg",
            program=self.config.qemu,
            slots=run.slots,
            memory=memory,
            machine=run.machine_type,
            processor=self.config.cpu_model,
            consoles=run.consoles,
        )

    def _newest_machine_type(self) -> str:
        """Asked once: it is what a guest that is to move or to be resumed must find again."""
        if self._machine_type is None:
            self._machine_type = computer.machine_type(self.config.qemu)
        return self._machine_type

    def _ensure_disks(self, spec: MachineSpec, paths: MachinePaths) -> list[DiskFile]:
        """The disks of the spec, made where they are missing; files of disks that it has no longer go."""
        names = {disk.name for disk in spec.disks}
        for path in paths.directory.glob("*.qcow2"):
            if path.stem not in names:
                path.unlink()
        disks = [file for disk in spec.disks for file in self.disks.ensure(disk, paths)]
        return [*disks, DiskFile(name="config", path=paths.config_drive, format="raw", read_only=True)]

    def _own_disks(self, spec: MachineSpec, paths: MachinePaths) -> list[DiskFile]:
        """The disks that the guest writes to and that exist, in the order it sees them."""
        wanted = [disk for disk in spec.disks if disk.name != "rescue" and paths.disk(disk.name).exists()]
        files = [file for disk in wanted for file in self.disks.ensure(disk, paths)]
        return [file for file in files if not file.read_only]

    def _waiting(self, machine_id: str) -> threading.Event:
        """Set when somebody else waits for what begins now."""
        event = self._hurries[machine_id]
        event.clear()
        return event

    def _stop(self, paths: MachinePaths, grace_seconds: float) -> None:
        """The process is gone after this: asked to power off first, when there is time for that."""
        running = self._process(paths)
        if running is not None:
            if grace_seconds > 0:
                hurry = self._waiting(paths.directory.name)
                with contextlib.suppress(HypervisorError):
                    if qmp.state(paths.qmp)[0] is MachineState.RUNNING:
                        qmp.execute(paths.qmp, "system_powerdown")
                        _wait(running, grace_seconds, hurry)
            # On SIGTERM qemu writes back what it holds, and ends.
            running.end()
        throttling.forget(group_name(paths))
        paths.memory.unlink(missing_ok=True)

    def _process(self, paths: MachinePaths) -> Process | None:
        """The machine's qemu. A socket that accepts without a pid file is one that was started this very moment."""
        running = process.find(paths.pid)
        if running is None and paths.qmp.exists() and qmp.somebody_listens(paths.qmp):
            running = process.find_soon(paths.pid, 2)
        return running

    # --- looking ----------------------------------------------------------------------------------------------------

    def _look(self, machine_id: str, paths: MachinePaths) -> MachineReport:
        if not paths.directory.is_dir() or not self.paths.is_ours(machine_id):
            return MachineReport(id=machine_id, state=MachineState.ABSENT)
        trim_console(paths.console)
        if self._process(paths) is None:
            return MachineReport(id=machine_id, state=MachineState.SHUTOFF)
        run = _run(paths)
        try:
            state, _ = qmp.state(paths.qmp)
        except qmp.NobodyAnswers:
            running = self._process(paths)
            state = MachineState.SHUTOFF if running is None or running.wait(5) else MachineState.CRASHED
        except HypervisorError as error:
            # Busy or stuck, but there: the guest most likely goes on.
            log.warning("machine %s: %s", machine_id, error)
            state = MachineState.RUNNING
        if state is MachineState.SHUTOFF:
            return MachineReport(id=machine_id, state=state)
        return MachineReport(id=machine_id, state=state, accelerator=run.accelerator, started_at=run.started_at)

    def _command(self, machine_id: str, command: str) -> MachineReport:
        with self._machine(machine_id) as paths:
            if self._process(paths) is None:
                raise HypervisorError(f"Machine {machine_id} does not run.")
            qmp.execute(paths.qmp, command)
            return self._look(machine_id, paths)

    # --- guests that KVM cannot run ---------------------------------------------------------------------------------

    def _watch(self, machine_id: str) -> None:
        """Look at a guest under KVM for its first while; the launch does not wait for that."""

        def watch() -> None:
            deadline = time.monotonic() + DOUBTFUL_SECONDS
            while time.monotonic() < deadline:
                time.sleep(0.5)
                with self._machine(machine_id) as paths:
                    try:
                        if self._process(paths) is None or self._mend(machine_id, paths):
                            return
                    except HypervisorError:
                        log.exception("machine %s fell over under KVM and cannot be started again", machine_id)
                        return

        threading.Thread(target=watch, name=f"watch-{machine_id}", daemon=True).start()

    def _mend(self, machine_id: str, paths: MachinePaths) -> bool:
        """Start a guest again under TCG that fell into `internal-error` early under KVM. True when that was done."""
        run = _run(paths)
        young = (datetime.now(UTC) - run.started_at).total_seconds() < 2 * DOUBTFUL_SECONDS
        if run.accelerator != "kvm" or not young:
            return False
        running, spec = self._process(paths), self.spec(machine_id)
        if running is None or spec is None:
            return False
        try:
            _, word = qmp.state(paths.qmp)
        except HypervisorError:
            return False
        if word != "internal-error":
            return False
        reason = f"A guest ({machine_id}) fell into qemu's internal-error state under KVM."
        if not self.accelerators.distrust(reason):
            return False
        log.warning("%s It is started again under TCG, as all later ones are.", reason)
        running.end()
        self._launch(spec, paths, accelerator="tcg")
        return True

    def _mend_if_idle(self, machine_id: str) -> None:
        """The same for a machine that nobody is busy with: whoever is may take a minute."""
        with self._locks_guard:
            lock = self._locks.setdefault(machine_id, threading.RLock())
        if lock.acquire(blocking=False):
            try:
                with self._machine(machine_id) as paths:
                    self._mend(machine_id, paths)
            finally:
                lock.release()

    # --- inside -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _machine(self, machine_id: str) -> Iterator[MachinePaths]:
        """One thing at a time for one machine: the agent sees to that itself, but our own watchers act as well."""
        with self._locks_guard:
            lock = self._locks.setdefault(machine_id, threading.RLock())
        with lock:
            try:
                yield self.paths.machine(machine_id)
            except OSError as error:
                log.exception("machine %s", machine_id)
                where = f" ({error.filename})" if error.filename else ""
                raise HypervisorError(f"The host's files are in the way: {error.strerror}{where}.") from error

    def _release(self, machine_id: str) -> None:
        self.segments.release(machine_id)
        self._images.pop(machine_id, None)

    def _is_claimed(self, image_id: str) -> bool:
        return any(image_id in ids for ids in list(self._images.values()))


def _image_ids(spec: MachineSpec) -> frozenset[str]:
    return frozenset(disk.image.id for disk in spec.disks if disk.image is not None)


def _is_about_kvm(error: LaunchFailed) -> bool:
    return any(word in str(error).lower() for word in ("kvm", "internal-error"))


def _run(paths: MachinePaths) -> Run:
    """The present or last run."""
    try:
        document = json.loads(paths.run.read_bytes())
        started_at = datetime.fromtimestamp(document["started_at"], UTC)
        slots, machine_type = document.get("slots", {}), document.get("machine_type", "q35")
        return Run(document["accelerator"], started_at, slots, machine_type, document.get("consoles", False))
    except (FileNotFoundError, ValueError, KeyError):
        return Run(None, datetime.fromtimestamp(0, UTC), {})


def _is_outgoing(paths: MachinePaths, plan: Plan) -> bool:
    """Whether the disks of the machine are being sent, or were sent, by this very plan."""
    return paths.outgoing.exists() and paths.outgoing.read_text() == plan.id


def _awaited(paths: MachinePaths, plan: Plan) -> Landing | None:
    """Where the guest of this plan is awaited already."""
    try:
        document = json.loads(paths.incoming.read_bytes())
    except FileNotFoundError:
        return None
    return Landing.model_validate(document["landing"]) if document.get("plan") == plan.id else None


def _take_memory(paths: MachinePaths) -> Path | None:
    """The memory of a suspended guest, set aside so that nobody uses it again."""
    taken = paths.memory.with_name("memory-in-use")
    taken.unlink(missing_ok=True)
    if not paths.memory.exists():
        return None
    os.rename(paths.memory, taken)
    return taken


def _wait(running: Process, timeout_seconds: float, hurry: threading.Event) -> None:
    """Until the process is gone, the time is over or somebody is in a hurry."""
    deadline = time.monotonic() + timeout_seconds
    while (left := deadline - time.monotonic()) > 0 and not hurry.is_set():
        if running.wait(min(left, 0.25)):
            return
