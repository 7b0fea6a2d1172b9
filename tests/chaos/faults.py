"""Faults of one installation: killed, frozen and restarted processes, a full disk."""

import os
import random
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.contract.conftest import Cloud

MIB = 1 << 20


def processes(cloud: Cloud) -> dict[int, str]:
    """Processes of the installation by pid, with their module; guests and radvd are not among them."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (directory / "cmdline").read_bytes().split(b"\0")
            environment = (directory / "environ").read_bytes()
            if f"SIXSTACK_STATE={cloud.state}\0".encode() in environment and b"-m" in words:
                found[int(directory.name)] = words[words.index(b"-m") + 1].decode()
            elif b"multiprocessing.spawn" in b" ".join(words) and str(cloud.state).encode() in environment:
                found[int(directory.name)] = "API worker"
    return found


class Faults(threading.Thread):
    """Injects one random fault after the other until `stop`; each ends before the next begins."""

    def __init__(self, cloud: Cloud, seed: int, print_line: Callable[[str], None]) -> None:
        super().__init__(name="faults", daemon=True)
        self.counts: Counter[str] = Counter()
        self.error: BaseException | None = None
        self._cloud = cloud
        self._random = random.Random(seed)
        self._print = print_line
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End the current fault and return when the installation has been told to run normally."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        kinds = [
            self._kill,
            self._kill,
            self._kill,
            self._freeze,
            self._freeze,
            self._kill_all,
            self._restart,
            self._fill,
        ]
        try:
            while not self._stopping.wait(self._random.uniform(0.2, 4)):
                kind = self._random.choice(kinds)
                kind()
        except BaseException as error:
            self.error = error

    def _count(self, fault: str) -> None:
        self.counts[fault] += 1
        self._print(f"fault: {fault}")

    def _victim(self) -> tuple[int, str] | None:
        found = sorted(processes(self._cloud).items())
        return self._random.choice(found) if found else None

    def _kill(self) -> None:
        if (victim := self._victim()) is not None:
            self._count(f"kill -9 {victim[1]}")
            with suppress(ProcessLookupError):
                os.kill(victim[0], signal.SIGKILL)

    def _freeze(self) -> None:
        if (victim := self._victim()) is not None:
            self._count(f"freeze {victim[1]}")
            with suppress(ProcessLookupError):
                os.kill(victim[0], signal.SIGSTOP)
                self._stopping.wait(self._random.uniform(0.5, 12))
                os.kill(victim[0], signal.SIGCONT)

    def _kill_all(self) -> None:
        self._count("kill -9 everything")
        self._cloud.kill()
        self._cloud.up()

    def _restart(self) -> None:
        self._count("restart")
        self._cloud.down()
        self._cloud.up()

    def _fill(self) -> None:
        self._count("full disk")
        filler = self._cloud.state.parent / "filler"
        try:
            with filler.open("wb") as file:
                status = os.statvfs(filler)
                os.posix_fallocate(
                    file.fileno(), 0, max(1, status.f_bavail * status.f_frsize - self._random.choice([0, 2, 40]) * MIB)
                )
            self._stopping.wait(self._random.uniform(1, 10))
        except OSError:
            self._stopping.wait(1)
        finally:
            filler.unlink(missing_ok=True)


def mount_disk(place: Path, size_gib: int) -> None:
    """A file system of its own in a sparse file, so that filling it affects nothing else and costs no space."""
    place.mkdir(parents=True)
    backing = place.with_suffix(".img")
    with backing.open("wb") as file:
        file.truncate(size_gib << 30)
    lazily = "lazy_itable_init=1,lazy_journal_init=1"
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-E", lazily, str(backing)], check=True)
    subprocess.run(["mount", "-o", "loop", str(backing), str(place)], check=True)


def unmount(place: Path) -> None:
    """Remove what `mount_disk` made."""
    subprocess.run(["umount", "--lazy", str(place)], check=True)
    place.with_suffix(".img").unlink()
