"""Checkpoints (internal qcow2 snapshots, for resizes that may be reverted) and full copies of disks.

Functions are for machines that do not run unless their name contains `running`. A guest may have written to the disk,
so its header is inspected before each use, and qemu-img gets each layer with its format and runs unprivileged.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient

from hypervisor.api.errors import HypervisorError
from hypervisor.qemu import qmp
from hypervisor.storage import qemu_img
from hypervisor.storage.disks import DiskFile, inspect_overlay

CHECKPOINT = "before-resize"
JOB = "snapshot"
COPY_SECONDS = 4 * 3600.0


def layers(disk: DiskFile, lend: qemu_img.Run, *, alone: bool = False) -> str:
    """Describe the disk for qemu-img: each layer by descriptor and with its format; `alone` omits the base.

    The backing file in the header is ignored. Raises ImageUnusable when it names a data file.
    """
    inspect_overlay(disk)
    node: dict[str, Any] = {"driver": disk.format, "file": {"driver": "file", "filename": lend.lend(disk.path)}}
    if disk.format == "qcow2":
        node["backing"] = None
        if disk.base is not None and not alone:
            base: dict[str, Any] = {"driver": disk.base_format}
            base["file"] = {"driver": "file", "filename": lend.lend_shared(disk.base)}
            if disk.base_format == "qcow2":
                base["backing"] = None
            node["backing"] = base
    return f"json:{json.dumps(node)}"


def virtual_bytes(disk: DiskFile) -> int:
    """Return the virtual size from the header, also of a running guest. Raises ImageUnusable."""
    return inspect_overlay(disk)


def has_checkpoint(disk: DiskFile) -> bool:
    with qemu_img.Run() as run:
        found = json.loads(run(["info", "--output=json", layers(disk, run, alone=True)], timeout_seconds=60))
    return any(one["name"] == CHECKPOINT for one in found.get("snapshots", ()))


def create_checkpoint(disk: DiskFile) -> None:
    """Create a checkpoint of the disk; an existing one is kept."""
    if not has_checkpoint(disk):
        _run_snapshot_command(disk, "-c")


def restore_checkpoint(disk: DiskFile) -> None:
    """Revert the disk, with its size, to the checkpoint, and delete the checkpoint."""
    if has_checkpoint(disk):
        _run_snapshot_command(disk, "-a")
        delete_checkpoint(disk)


def delete_checkpoint(disk: DiskFile) -> None:
    """Delete the checkpoint, if there is one."""
    if has_checkpoint(disk):
        _run_snapshot_command(disk, "-d")


def delete_running_checkpoint(control: Path, disks: int) -> None:
    """Delete the checkpoints of a running guest's first `disks` disks; there may be fewer."""

    async def converse(client: QMPClient) -> None:
        for number in range(disks):
            with contextlib.suppress(ExecuteError):  # no such disk or checkpoint
                await client.execute(
                    "blockdev-snapshot-delete-internal-sync", {"device": f"disk{number}", "name": CHECKPOINT}
                )

    qmp.run_session(control, converse, timeout_seconds=300)


def grow(disk: DiskFile, size_bytes: int) -> None:
    """Grow the disk to at least this size."""
    if virtual_bytes(disk) < size_bytes:
        with qemu_img.Run() as run:
            run(["resize", "-q", layers(disk, run), str(size_bytes)], timeout_seconds=300)


def copy(disk: DiskFile, target: Path) -> None:
    """Copy the disk with its base into one qcow2 file."""
    target.unlink(missing_ok=True)
    with qemu_img.Run() as run:
        words = ["convert", "-q", "-O", "qcow2", layers(disk, run), run.create(target)]
        run(words, timeout_seconds=COPY_SECONDS)


def copy_running(control: Path, size_bytes: int, target: Path, is_interrupted: Callable[[], bool]) -> None:
    """Copy the first disk of a running guest, as of the start of the job, into one qcow2 file.

    Raises HypervisorError, also when `is_interrupted`.
    """
    target.unlink(missing_ok=True)
    with qemu_img.Run() as run:
        run(["create", "-q", "-f", "qcow2", run.create(target), str(size_bytes)], timeout_seconds=60)
    descriptor = os.open(target, os.O_RDWR | os.O_CLOEXEC)

    async def converse(client: QMPClient) -> None:
        await _clean_up(client)
        client.send_fd_scm(descriptor)
        added: Any = await client.execute("add-fd", {"opaque": JOB})
        file = {"driver": "file", "filename": f"/dev/fdset/{added['fdset-id']}"}
        node = {"driver": "qcow2", "node-name": JOB, "file": file, "detect-zeroes": "unmap", "discard": "unmap"}
        try:
            await client.execute("blockdev-add", node)
            job = {"job-id": JOB, "device": "disk0", "target": JOB, "sync": "full", "auto-dismiss": False}
            await client.execute("blockdev-backup", job)
            await _wait_for_backup(client, is_interrupted)
        finally:
            await _clean_up(client)

    try:
        qmp.run_session(control, converse, timeout_seconds=COPY_SECONDS)
    finally:
        os.close(descriptor)


async def _wait_for_backup(client: QMPClient, is_interrupted: Callable[[], bool]) -> None:
    while True:
        job = await _job(client)
        if job is None or job["status"] == "concluded":
            if job is None or job.get("error"):
                raise HypervisorError(f"The disk could not be copied: {job['error'] if job else 'it was cancelled'}.")
            return
        if is_interrupted():
            raise HypervisorError("The copy of the disk was cancelled by a more urgent operation.")
        await asyncio.sleep(0.1)


async def _job(client: QMPClient) -> dict[str, Any] | None:
    jobs: Any = await client.execute("query-jobs")
    return next((job for job in jobs if job["id"] == JOB), None)


async def _clean_up(client: QMPClient) -> None:
    """Remove the job, node and descriptors of this copy, or of an interrupted one, from qemu."""
    with contextlib.suppress(ExecuteError):
        await client.execute("job-cancel", {"id": JOB})
    while (job := await _job(client)) is not None:
        if job["status"] == "concluded":
            await client.execute("job-dismiss", {"id": JOB})
        else:
            await asyncio.sleep(0.05)
    with contextlib.suppress(ExecuteError):
        await client.execute("blockdev-del", {"node-name": JOB})
    sets: Any = await client.execute("query-fdsets")
    for one in sets:
        if any(each.get("opaque") == JOB for each in one["fds"]):
            await client.execute("remove-fd", {"fdset-id": one["fdset-id"]})


def _run_snapshot_command(disk: DiskFile, action: str) -> None:
    with qemu_img.Run() as run:
        run(["snapshot", action, CHECKPOINT, layers(disk, run)], timeout_seconds=300)
