"""Suspend to disk: qemu migrates a guest's memory to a file and reads it on resume."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient

from hypervisor.api.errors import HypervisorError
from hypervisor.qemu import qmp

SAVE_SECONDS = 1800.0
UNDER_WAY = ("setup", "active", "pre-switchover", "device")
BYTES_PER_SECOND = 1 << 36  # unlimited


def save(control: Path, target: Path, is_interrupted: Callable[[], bool]) -> None:
    """Pause the guest and save its memory to the file. Raises HypervisorError; the guest then continues."""
    if target.exists():  # complete files only have this name
        return
    partial = target.with_name(f".{target.name}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        qmp.run_session(control, lambda client: _save(client, descriptor, is_interrupted), timeout_seconds=SAVE_SECONDS)
        publish_memory(descriptor, partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def publish_memory(descriptor: int, partial: Path, target: Path) -> None:
    """Sync the file and rename it to its final name."""
    os.fsync(descriptor)
    os.rename(partial, target)


async def _save(client: QMPClient, descriptor: int, is_interrupted: Callable[[], bool]) -> None:
    """Start the migration to the file, or wait for one that an agent started before it crashed.

    A resumed qemu reports a completed migration as well, so the run state decides.
    """
    status, progress = await _query_status(client)
    if status != "postmigrate" and progress.get("status") not in UNDER_WAY:
        os.ftruncate(descriptor, 0)
        await client.execute("stop")
        await client.execute("migrate-set-parameters", {"max-bandwidth": BYTES_PER_SECOND})
        client.send_fd_scm(descriptor)
        await client.execute("getfd", {"fdname": "memory"})
        await client.execute("migrate", {"uri": "fd:memory"})
    while True:
        status, progress = await _query_status(client)
        if status == "postmigrate" and progress.get("status") == "completed":
            if os.fstat(descriptor).st_size == 0:  # written to a file that has been deleted
                await client.execute("cont")
                raise HypervisorError("The guest's memory could not be saved: its file is gone.")
            return
        if progress.get("status") in ("failed", "cancelled"):
            await client.execute("cont")
            reason = progress.get("error-desc", progress["status"])
            raise HypervisorError(f"The guest's memory could not be saved: {reason}.")
        if is_interrupted():
            await client.execute("migrate_cancel")
        await asyncio.sleep(0.1)


async def _query_status(client: QMPClient) -> tuple[str, dict[str, Any]]:
    status: Any = await client.execute("query-status")
    progress: Any = await client.execute("query-migrate")
    return status["status"], progress


def resume(control: Path, timeout_seconds: float = SAVE_SECONDS) -> None:
    """Wait until qemu has read the memory and resume the guest. Raises HypervisorError."""

    async def converse(client: QMPClient) -> None:
        while True:
            now: Any = await client.execute("query-status")
            if now["status"] != "inmigrate":
                break
            await asyncio.sleep(0.05)
        await client.execute("cont")

    qmp.run_session(control, converse, timeout_seconds=timeout_seconds)
