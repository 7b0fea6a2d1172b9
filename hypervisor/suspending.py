"""A guest's memory in a file: qemu writes it as if it sent it to another host, and reads it when the guest goes on."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient

from hypervisor import qmp
from hypervisor.errors import HypervisorError

SAVE_SECONDS = 1800.0
BYTES_PER_SECOND = 1 << 36  # as fast as the disk takes it


def save(control: Path, target: Path, is_hurried: Callable[[], bool]) -> None:
    """The guest stands still and its memory is in the file, complete. Raises HypervisorError; then the guest runs."""
    partial = target.with_name(f".{target.name}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        qmp.talk(control, lambda client: _save(client, descriptor, is_hurried), timeout_seconds=SAVE_SECONDS)
        os.fsync(descriptor)
        os.rename(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


async def _save(client: QMPClient, descriptor: int, is_hurried: Callable[[], bool]) -> None:
    """Somebody before us may have died while qemu wrote to this very file: then we only wait."""
    before: Any = await client.execute("query-migrate")
    if before.get("status") not in ("setup", "active", "device", "completed"):
        os.ftruncate(descriptor, 0)
        await client.execute("stop")
        await client.execute("migrate-set-parameters", {"max-bandwidth": BYTES_PER_SECOND})
        client.send_fd_scm(descriptor)
        await client.execute("getfd", {"fdname": "memory"})
        await client.execute("migrate", {"uri": "fd:memory"})
    while True:
        now: Any = await client.execute("query-migrate")
        if now.get("status") == "completed":
            return
        if now.get("status") in ("failed", "cancelled"):
            await client.execute("cont")
            raise HypervisorError(f"The guest's memory could not be saved: {now.get('error-desc', now['status'])}.")
        if is_hurried():
            await client.execute("migrate_cancel")
        await asyncio.sleep(0.1)


def go_on(control: Path, timeout_seconds: float = SAVE_SECONDS) -> None:
    """Wait until qemu has read the memory, and let the guest go on. Raises HypervisorError."""

    async def converse(client: QMPClient) -> None:
        while True:
            now: Any = await client.execute("query-status")
            if now["status"] != "inmigrate":
                break
            await asyncio.sleep(0.05)
        await client.execute("cont")

    qmp.talk(control, converse, timeout_seconds=timeout_seconds)
