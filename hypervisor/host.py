"""A host that runs machines with qemu: puts disks, links, config drive and process together, and takes them apart."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv6Address
from pathlib import Path

from pydantic import ValidationError

from hypervisor import process, qmp
from hypervisor.accelerator import Accelerators, Wanted, kvm_groups
from hypervisor.config_drive import config_drive
from hypervisor.console import console_tail, trim_console
from hypervisor.disks import DiskFile, Disks
from hypervisor.errors import HostUnfit, HypervisorError, LaunchFailed
from hypervisor.machine import HostReport, MachineReport, MachineSpec, MachineState, NicSpec
from hypervisor.network import TUN, Links
from hypervisor.paths import HostPaths, MachinePaths, private_directory, remove_directory, remove_remains, write
from hypervisor.process import Identity, Process
from hypervisor.protocol import ImageSource
from hypervisor.qemu_command import OpenDisk, OpenFiles, OpenNic, qemu_command
from hypervisor.radvd import Advertisement, RouterAdvertiser, Timing
from hypervisor.spoofing import SpoofingGuard

log = logging.getLogger(__name__)

# Above what systemd and containers hand out, below 2**31: no account and no container has these numbers.
FIRST_UID = 0x7000_0000
UIDS = 0x0F00_0000
LAUNCH_SECONDS = 30.0
# A guest that KVM cannot run falls over in its boot loader or early kernel.
DOUBTFUL_SECONDS = 60.0
PROGRAMS = {
    "qemu-system-x86_64": "apt install qemu-system-x86",
    "qemu-img": "apt install qemu-utils",
    "radvd": "apt install radvd",
    "nft": "apt install nftables",
    "setpriv": "apt install util-linux",
    "setsid": "apt install util-linux",
}


@dataclass(frozen=True)
class HostConfig:
    """What the operator decides about a host.

    `installation` is four hex digits, different for each installation on one computer: link names begin with it.
    """

    state: Path
    installation: str
    host_name: str
    uplink: str = "lo"
    accelerator: Wanted = "auto"
    dns_servers: tuple[IPv6Address, ...] = ()
    dns_search: tuple[str, ...] = ()
    router_timing: Timing = field(default_factory=Timing)
    reserved_memory_mib: int = 512
    qemu: str = "qemu-system-x86_64"


class QemuHypervisor:
    """Implements `Hypervisor`. Files are the only memory: a second one, started later, finds what a first one left."""

    def __init__(self, config: HostConfig, images: ImageSource) -> None:
        if not re.fullmatch(r"[0-9a-f]{4}", config.installation):
            raise ValueError(f"an installation is four hex digits, not {config.installation!r}")
        self.config = config
        self.paths = HostPaths(config.state.resolve())
        self.links = Links(config.installation, config.uplink)
        self.disks = Disks(self.paths.bases, images)
        self.accelerators = Accelerators(config.accelerator, self.paths.accelerator, config.qemu)
        self.guard = SpoofingGuard(config.installation, self.links.tap)
        self.router = RouterAdvertiser(self.paths, config.router_timing)
        self._locks: dict[str, threading.RLock] = {}
        self._locks_guard = threading.Lock()
        self._network_lock = threading.RLock()
        self._claims: dict[str, MachineSpec] = {}
        self._version: int | None = None
        for machine_id in self.paths.machine_ids():
            spec = self.spec(machine_id)
            if spec is not None:
                self._claims[machine_id] = spec

    # --- the host ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise HostUnfit, saying what to do, when this computer cannot run machines for this user."""
        if os.geteuid() != 0:
            raise HostUnfit("Running machines needs root: start Sixstack as root (sudo).")
        for program, remedy in {self.config.qemu: PROGRAMS["qemu-system-x86_64"], **PROGRAMS}.items():
            if shutil.which(program) is None:
                raise HostUnfit(f"{program} is missing: {remedy}")
        try:
            os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise HostUnfit(
                f"{TUN} cannot be opened ({error.strerror}): `modprobe tun`, or give it to the container."
            ) from error
        self.accelerators.choice()

    def describe(self) -> HostReport:
        choice = self.accelerators.choice()
        self.paths.state.mkdir(parents=True, exist_ok=True)
        disk = os.statvfs(self.paths.state)
        memory_kib = int(re.findall(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)[0])
        return HostReport(
            name=self.config.host_name,
            vcpus=os.cpu_count() or 1,
            memory_mib=max(0, memory_kib // 1024 - self.config.reserved_memory_mib),
            disk_gib=disk.f_blocks * disk.f_frsize >> 30,
            accelerator=choice.accelerator,
            accelerator_reason=choice.reason,
            hypervisor_version=self._qemu_version(),
            cpu_model=_cpu_model(),
        )

    def repair(self) -> None:
        remove_remains(self.paths.machines)
        for machine_id in self.paths.machine_ids():
            with self._machine(machine_id) as paths:
                trim_console(paths.console)
                self._mend(machine_id, paths)
        with self._network_lock:
            needed = {nic.vni for spec in self._claims.values() for nic in spec.nics}
            for vni in self.links.segments() - needed:
                self.links.remove_segment(vni)
            for machine_id in list(self._claims):
                if self._process(self.paths.machine(machine_id)) is not None:
                    for nic in self._claims[machine_id].nics:
                        self.links.ensure_segment(nic)
                        self.links.ensure_plugged(nic)
            self._advertise()
            if self._claims:
                self.guard.repair([nic for spec in self._claims.values() for nic in spec.nics])
            else:
                self.guard.close_down()

    def evict_images(self, in_use: frozenset[str]) -> None:
        self.disks.evict(lambda image_id: image_id in in_use or image_id in self._claimed_images())

    def close_down(self) -> None:
        with self._network_lock:
            self.router.apply(())
            self.guard.close_down()
            for vni in self.links.segments():
                self.links.remove_segment(vni)

    def close(self) -> None:
        """Let go of what this object holds. Machines, links and radvd go on."""
        self.links.close()

    # --- machines ---------------------------------------------------------------------------------------------------

    def ensure_running(self, spec: MachineSpec) -> MachineReport:
        with self._machine(spec.id) as paths:
            running = self._process(paths)
            if running is not None:
                if self._look(spec.id, paths).state in (MachineState.RUNNING, MachineState.PAUSED):
                    return self._look(spec.id, paths)
                running.end()
            return self._launch(spec, paths)

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

    def remove(self, machine_id: str) -> None:
        with self._machine(machine_id) as paths:
            self._stop(paths, 0)
            remove_directory(paths.directory)
            self._release(machine_id)
        with self._locks_guard:
            self._locks.pop(machine_id, None)

    def report(self, machine_id: str) -> MachineReport:
        return self._look(machine_id, self.paths.machine(machine_id))

    def reports(self) -> Sequence[MachineReport]:
        return [self.report(machine_id) for machine_id in self.paths.machine_ids()]

    def console_log(self, machine_id: str) -> bytes:
        return console_tail(self.paths.machine(machine_id).console)

    def spec(self, machine_id: str) -> MachineSpec | None:
        path = self.paths.machine(machine_id).spec
        try:
            return MachineSpec.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            log.exception("%s is not the document of a machine", path)
            return None

    # --- starting and ending ----------------------------------------------------------------------------------------

    def _launch(self, spec: MachineSpec, paths: MachinePaths, accelerator: str | None = None) -> MachineReport:
        """Start a machine that does not run. Keeps the disks it has; leaves nothing new behind when it fails."""
        accelerator = accelerator or self.accelerators.choice().accelerator
        is_new = not paths.spec.exists()
        with ExitStack() as undo:
            if is_new:
                undo.callback(self._release, spec.id)
                undo.callback(remove_directory, paths.directory)
            private_directory(paths.directory)
            write(paths.spec, spec.model_dump_json().encode())
            self._claim(spec)
            disks = [file for disk in spec.disks for file in self.disks.ensure(disk, paths)]
            write(paths.config_drive, config_drive(spec))
            disks.append(DiskFile(name="config", path=paths.config_drive, format="raw", read_only=True))
            write(paths.run, json.dumps({"accelerator": accelerator, "started_at": time.time()}).encode())
            self._start(spec, paths, disks, accelerator)
            undo.pop_all()
        return MachineReport(id=spec.id, state=MachineState.RUNNING, accelerator=accelerator, started_at=_run(paths)[1])

    def _start(self, spec: MachineSpec, paths: MachinePaths, disks: list[DiskFile], accelerator: str) -> None:
        identity = machine_identity(self.config.installation, spec.id, kvm_groups() if accelerator == "kvm" else ())
        with ExitStack() as mine:  # qemu has its own copies of these descriptors
            listener = mine.enter_context(contextlib.closing(qmp.listen(paths.qmp)))
            files = OpenFiles(
                qmp=listener.fileno(),
                console=_open(mine, paths.console, os.O_WRONLY | os.O_APPEND | os.O_CREAT),
                disks=tuple(_open_disk(mine, disk) for disk in disks),
                nics=tuple(self._open_nic(mine, nic, identity.uid) for nic in spec.nics),
            )
            command = qemu_command(
                spec,
                files,
                accelerator=accelerator,
                program=self.config.qemu,
                label=f"{self.config.installation}-",
            )
            process.start(command, pid_file=paths.pid, log=paths.log, identity=identity, inherit=files.descriptors())
        try:
            state, word = qmp.state(paths.qmp, timeout_seconds=LAUNCH_SECONDS)
            if state is not MachineState.RUNNING:
                raise LaunchFailed(f"The guest did not start to run, qemu says {word}.")
        except HypervisorError as error:
            running = process.find_soon(paths.pid, 0.5)
            if running is not None:
                running.end()
            words = process.log_tail(paths.log)
            log.error("machine %s does not start: %s; qemu says: %s", spec.id, error, words)
            raise LaunchFailed(f"qemu did not start: {words or error}") from error
        if accelerator == "kvm":
            self._watch(spec.id)

    def _open_nic(self, mine: ExitStack, nic: NicSpec, owner: int) -> OpenNic:
        tap = self.links.open_tap(nic, owner)
        mine.callback(os.close, tap)
        return OpenNic(nic, tap)

    def _stop(self, paths: MachinePaths, grace_seconds: float) -> None:
        """The process is gone after this: asked to power off first, when there is time for that."""
        running = self._process(paths)
        if running is None:
            return
        if grace_seconds > 0:
            with contextlib.suppress(HypervisorError):
                if qmp.state(paths.qmp)[0] is MachineState.RUNNING:
                    qmp.execute(paths.qmp, "system_powerdown")
                    running.wait(grace_seconds)
        # On SIGTERM qemu writes back what it holds, and ends.
        running.end()

    def _process(self, paths: MachinePaths) -> Process | None:
        """The machine's qemu. A socket that accepts without a pid file is one that was started this very moment."""
        running = process.find(paths.pid)
        if running is None and paths.qmp.exists() and qmp.somebody_listens(paths.qmp):
            running = process.find_soon(paths.pid, 2)
        return running

    # --- looking ----------------------------------------------------------------------------------------------------

    def _look(self, machine_id: str, paths: MachinePaths) -> MachineReport:
        if not paths.directory.is_dir():
            return MachineReport(id=machine_id, state=MachineState.ABSENT)
        trim_console(paths.console)
        if self._process(paths) is None:
            return MachineReport(id=machine_id, state=MachineState.SHUTOFF)
        accelerator, started_at = _run(paths)
        try:
            state, _ = qmp.state(paths.qmp)
        except qmp.NobodyAnswers:
            running = self._process(paths)
            state = MachineState.SHUTOFF if running is None or running.wait(5) else MachineState.CRASHED
        if state is MachineState.SHUTOFF:
            return MachineReport(id=machine_id, state=state)
        return MachineReport(id=machine_id, state=state, accelerator=accelerator, started_at=started_at)

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
        accelerator, started_at = _run(paths)
        young = (datetime.now(UTC) - started_at).total_seconds() < 2 * DOUBTFUL_SECONDS
        running = self._process(paths)
        spec = self.spec(machine_id)
        if accelerator != "kvm" or not young or running is None or spec is None:
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

    # --- segments ---------------------------------------------------------------------------------------------------

    def _claim(self, spec: MachineSpec) -> None:
        """From now on this machine needs its segments, its images and the rules for its ports."""
        with self._network_lock:
            before = self._claims.get(spec.id)
            self._claims[spec.id] = spec
            self.guard.ensure(spec.nics)
            if before is not None:
                ports = {nic.port_id for nic in spec.nics}
                self.guard.remove([nic for nic in before.nics if nic.port_id not in ports])
            for nic in spec.nics:
                self.links.ensure_segment(nic)
            self._advertise()

    def _release(self, machine_id: str) -> None:
        """This machine needs nothing any more: segments that no other one needs go."""
        with self._network_lock:
            gone = self._claims.pop(machine_id, None)
            if gone is None:
                return
            needed = {nic.vni for spec in self._claims.values() for nic in spec.nics}
            self._advertise()
            if self._claims:
                self.guard.remove(gone.nics)
            else:
                self.guard.close_down()
            for vni in {nic.vni for nic in gone.nics} - needed:
                self.links.remove_segment(vni)

    def _advertise(self) -> None:
        nics = {nic.vni: nic for spec in self._claims.values() for nic in spec.nics if nic.gateway is not None}
        self.router.apply(tuple(self._advertisement(nic) for nic in nics.values()))

    def _advertisement(self, nic: NicSpec) -> Advertisement:
        return Advertisement(
            interface=self.links.bridge(nic.vni),
            prefixes=tuple(sorted({address.network for address in nic.addresses})),
            mtu=nic.mtu,
            dns_servers=nic.dns_servers or self.config.dns_servers,
            dns_search=nic.dns_search or self.config.dns_search,
        )

    def _claimed_images(self) -> set[str]:
        specs = list(self._claims.values())
        return {disk.image.id for spec in specs for disk in spec.disks if disk.image is not None}

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

    def _qemu_version(self) -> int:
        if self._version is None:
            try:
                said = subprocess.run([self.config.qemu, "--version"], capture_output=True, text=True, timeout=20)
            except FileNotFoundError:
                raise HostUnfit(f"{self.config.qemu} is missing: {PROGRAMS['qemu-system-x86_64']}") from None
            numbers = re.findall(r"version (\d+)\.(\d+)\.(\d+)", said.stdout)
            major, minor, micro = map(int, numbers[0]) if numbers else (0, 0, 0)
            self._version = major * 1_000_000 + minor * 1_000 + micro
        return self._version


def machine_identity(installation: str, machine_id: str, groups: tuple[int, ...] = ()) -> Identity:
    """The user a machine's qemu runs as.

    Each machine has a number of its own, worked out from its id: a guest that breaks out of its qemu can neither signal
    nor trace another one, which one shared account would allow. No account needs to be created or cleaned up.
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


def _run(paths: MachinePaths) -> tuple[str | None, datetime]:
    """Accelerator and start of the present or last run."""
    try:
        document = json.loads(paths.run.read_bytes())
        return document["accelerator"], datetime.fromtimestamp(document["started_at"], UTC)
    except (FileNotFoundError, ValueError, KeyError):
        return None, datetime.fromtimestamp(0, UTC)


def _cpu_model() -> str:
    found = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[0] if found else ""
