"""Unprivileged runs of qemu-img. No other module runs it (tests/unit/test_hypervisor_qemu_img.py).

A run has a uid of its own, no capabilities, no network, limits on processor time and memory, and no access by path:
files are opened here and named /proc/self/fd/N. Opening such a name again ignores the directories above the file but
checks the file's own mode, so each file is lent: one that only this run uses by its owner, a shared one by its group.
"""

import functools
import logging
import math
import os
import secrets
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from hypervisor.api.errors import HypervisorError
from hypervisor.base.process import Identity, clean_environment

log = logging.getLogger(__name__)

# Above the uids of machines (hypervisor/machines/launch.py), below those of API processes (app/security/privileges.py).
FIRST_UID = 0x7F00_0001
UIDS = 0x00D0_0000
GROUP = 0x7F00_0000
MEMORY_BYTES = 2 << 30


class Run:
    """Files lent to one or more runs of qemu-img; the end of the `with` block restores their owner."""

    def __init__(self) -> None:
        self._identity = Identity(FIRST_UID + secrets.randbelow(UIDS), GROUP) if os.geteuid() == 0 else None
        self._descriptors: list[int] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def create(self, path: Path) -> str:
        """Create an empty file of mode 0600 and return its name. Raises FileExistsError."""
        return self._lend_owned(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def lend(self, path: Path) -> str:
        """Return the name of a file for reading and writing. Nothing else may open it by path until the end."""
        return self._lend_owned(path, os.O_RDWR)

    def lend_shared(self, path: Path) -> str:
        """Return the name of a shared file for reading. Its group and mode stay changed."""
        descriptor = self._open(path, os.O_RDONLY)
        if self._identity is not None and os.fstat(descriptor).st_gid != GROUP:
            os.fchown(descriptor, -1, GROUP)
            os.fchmod(descriptor, 0o640)
        return _name(descriptor)

    def __call__(self, words: list[str], *, timeout_seconds: float, file_bytes: int | None = None) -> str:
        """Run `qemu-img WORDS` and return its output. `file_bytes` limits the size of files that it writes.

        Raises HypervisorError with what it writes to stderr.
        """
        limits = ["prlimit", f"--as={MEMORY_BYTES}", f"--cpu={math.ceil(timeout_seconds)}", "--core=0"]
        if file_bytes is not None:
            limits.append(f"--fsize={file_bytes}")
        if self._identity is None:
            identity = ["setpriv", "--no-new-privs", "--"]
        else:
            identity = [*_without_network(), *self._identity.command()]
        return run(
            [*limits, *identity, "qemu-img", *words],
            timeout_seconds=timeout_seconds,
            inherit=tuple(self._descriptors),
        )

    def _lend_owned(self, path: Path, flags: int) -> str:
        descriptor = self._open(path, flags)
        if self._identity is not None:
            os.fchown(descriptor, self._identity.uid, -1)
            self._stack.callback(os.fchown, descriptor, os.geteuid(), -1)
        return _name(descriptor)

    def _open(self, path: Path, flags: int) -> int:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._stack.callback(os.close, descriptor)
        self._descriptors.append(descriptor)
        return descriptor


def run(command: list[str], *, timeout_seconds: float, inherit: tuple[int, ...] = ()) -> str:
    """Run a program and return its output. The environment, which may hold passwords, is not passed on.

    Raises HypervisorError with what it writes to stderr.
    """
    try:
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_seconds,
            pass_fds=inherit,
            cwd="/",
            env=clean_environment(),
        )
    except subprocess.CalledProcessError as error:
        raise HypervisorError(error.stderr.decode(errors="replace").strip() or str(error)) from error
    except subprocess.TimeoutExpired as error:
        raise HypervisorError(f"{command[0]} took more than {timeout_seconds:g} seconds.") from error
    return done.stdout.decode(errors="replace")


@functools.cache
def _without_network() -> list[str]:
    """Return the command prefix for an empty network namespace; empty where namespaces are not permitted."""
    words = ["unshare", "--net", "--"]
    if subprocess.run([*words, "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
        return words
    log.warning("qemu-img keeps the host's network: network namespaces cannot be created (CAP_SYS_ADMIN)")
    return []


def _name(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"
