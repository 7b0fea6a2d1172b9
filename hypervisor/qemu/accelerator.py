"""Selects the accelerator of a host: static checks, then a probe guest whose result is cached until reboot."""

import contextlib
import json
import logging
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from hypervisor.api.errors import HostUnfit
from hypervisor.base.config import AcceleratorChoice
from hypervisor.base.paths import write
from hypervisor.base.process import Identity, boot_id

log = logging.getLogger(__name__)

KVM = Path("/dev/kvm")
PROBE_LOOPS = 20_000_000
PROBE_SECONDS = 2.0
PROBE_EXIT_CODE = 33
RECHECK_PROBE_SECONDS = 10.0
RECHECK_SECONDS = 600.0


@dataclass(frozen=True)
class SelectedAccelerator:
    """The accelerator of new guests, and the reason for not using KVM."""

    accelerator: str
    reason: str | None = None


class AcceleratorSelector:
    """Selects the accelerator; caches the result in a file, by boot, kernel and qemu program. Thread-safe."""

    def __init__(self, wanted: AcceleratorChoice, cache_file: Path, program: str = "qemu-system-x86_64") -> None:
        self.wanted = wanted
        self.cache_file = cache_file
        self.program = program
        self._lock = threading.Lock()
        self._choice: SelectedAccelerator | None = None
        self._rechecked: float | None = None

    def select(self) -> SelectedAccelerator:
        """Return the accelerator for new guests. Raises HostUnfit when KVM is required and unavailable."""
        with self._lock:
            if self._choice is None:
                self._choice = self._detect()
            return self._choice

    def may_fall_back(self) -> bool:
        """Return whether machines that fail under KVM may use TCG. False when the operator requires KVM."""
        return self.wanted != "kvm"

    def recheck(self) -> None:
        """Probe KVM again after a guest failed under it, and switch to TCG when two probes fail.

        A guest can provoke a failure itself, which must not change the accelerator of other machines. Guests can also
        load the host, so these probes have a longer timeout than the first one. They run at most once per
        RECHECK_SECONDS.
        """
        with self._lock:
            now = time.monotonic()
            is_recent = self._rechecked is not None and now - self._rechecked < RECHECK_SECONDS
            if is_recent or self._choice is None or self._choice.accelerator != "kvm" or not self.may_fall_back():
                return
            self._rechecked = now
        if self._probe(RECHECK_PROBE_SECONDS) is None:
            return
        failure = self._probe(RECHECK_PROBE_SECONDS)
        if failure is None:
            return
        log.error("KVM probe failed, new guests use TCG: %s", failure)
        with self._lock:
            self._choice = SelectedAccelerator("tcg", failure)
            self._save(self._choice)

    def _detect(self) -> SelectedAccelerator:
        if self.wanted == "tcg":
            return SelectedAccelerator("tcg", "TCG was asked for.")
        missing = kvm_unavailable_reason()
        if self.wanted == "kvm":
            if missing is not None and not os.access(KVM, os.R_OK | os.W_OK):
                raise HostUnfit(f"KVM was asked for, but: {missing}")
            return SelectedAccelerator("kvm")
        if missing is not None:
            return SelectedAccelerator("tcg", missing)
        choice = self._load()
        if choice is None:
            failure = self._probe()
            choice = SelectedAccelerator("kvm") if failure is None else SelectedAccelerator("tcg", failure)
            self._save(choice)
        return choice

    def _cache_key(self) -> str:
        return f"{boot_id()} {os.uname().release} {self.program}"

    def _load(self) -> SelectedAccelerator | None:
        try:
            document = json.loads(self.cache_file.read_bytes())
            return SelectedAccelerator(**document["choice"]) if document["key"] == self._cache_key() else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _save(self, choice: SelectedAccelerator) -> None:
        self.cache_file.parent.mkdir(parents=True, exist_ok=True)
        write(self.cache_file, json.dumps({"key": self._cache_key(), "choice": asdict(choice)}).encode())

    def _probe(self, timeout_seconds: float = PROBE_SECONDS) -> str | None:
        return probe(self.program, timeout_seconds=timeout_seconds)


def kvm_unavailable_reason() -> str | None:
    """Check KVM without starting a guest. Returns the reason for not using it, or None."""
    if Path("/sys/module/kvm_pvm").exists():
        return "KVM here is PVM, which emulates ordinary guests in software, slower than TCG does."
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        if " vmx" not in flags and " svm" not in flags:
            return "The processor offers no virtualisation (neither vmx nor svm)."
    if not KVM.exists():
        return "There is no /dev/kvm: load kvm_intel or kvm_amd."
    status = KVM.stat()
    is_world_accessible = status.st_mode & 0o006 == 0o006
    is_group_accessible = status.st_mode & 0o060 == 0o060 and status.st_gid != 0
    if not is_world_accessible and not is_group_accessible:
        return "/dev/kvm is for root only, and qemu does not run as root: `chgrp kvm /dev/kvm; chmod 660 /dev/kvm`."
    return None


def kvm_groups() -> tuple[int, ...]:
    """Return the supplementary groups that qemu needs to open /dev/kvm."""
    try:
        group = KVM.stat().st_gid
    except FileNotFoundError:
        return ()
    return (group,) if group else ()


def probe_rom() -> bytes:
    """Build a 64 KiB ROM that counts down from PROBE_LOOPS and then ends qemu with PROBE_EXIT_CODE."""
    code = b"\x66\xb9" + PROBE_LOOPS.to_bytes(4, "little") + bytes.fromhex("66 49 75 fc b0 10 e6 f4 f4 eb fd")
    rom = bytearray(b"\xff" * 0x10000)
    rom[: len(code)] = code
    rom[0xFFF0:0xFFF5] = bytes.fromhex("ea 00 00 00 f0")
    return bytes(rom)


def probe(program: str, accelerator: str = "kvm", *, timeout_seconds: float = PROBE_SECONDS) -> str | None:
    """Run the probe ROM. Returns None when it completes in time, otherwise the failure as a message."""
    # An unprivileged uid without an account, as machines have.
    identity = Identity(0x7FFF0000, 0x7FFF0000, kvm_groups() if accelerator == "kvm" else ())
    with tempfile.TemporaryDirectory(prefix="sixstack-probe-") as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - qemu reads the ROM as another user; there is nothing secret in it
        rom = Path(directory, "probe.rom")
        rom.write_bytes(probe_rom())
        rom.chmod(0o644)
        command = [
            *(program, "-nodefaults", "-no-user-config", "-machine", "pc,graphics=off", "-accel", accelerator),
            *("-m", "16", "-display", "none", "-bios", str(rom)),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        ]
        if os.geteuid() == 0:
            command = identity.command() + command
        started = time.monotonic()
        try:
            result = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            return f"KVM is too slow to be real: a loop took more than {timeout_seconds:g} seconds."
        except FileNotFoundError:
            raise HostUnfit(f"{program} is missing: apt install qemu-system-x86") from None
        if result.returncode == PROBE_EXIT_CODE:
            return None
        message = result.stderr.decode(errors="replace").strip() or f"exit status {result.returncode}"
        return f"KVM failed after {time.monotonic() - started:.1f} s: {message}"
