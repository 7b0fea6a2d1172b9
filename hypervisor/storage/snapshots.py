"""A disk as it was: kept inside its own file while a resize may be reverted, or copied into a file of its own.

Only for machines that do not run, unless it says otherwise. A guest may have written to the disk, so its header is
inspected before each use, and qemu-img is told every layer and its format and runs without privileges (qemu_img.py).
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
    """The disk as qemu-img takes it, every layer by descriptor and with its format; `alone` leaves out the base.

    What the file's header says about a backing file is ignored. Raises ImageUnusable when it names a data file.
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
    """The size that the guest sees, read from the header: the guest may run. Raises ImageUnusable."""
    return inspect_overlay(disk)


def has_checkpoint(disk: DiskFile) -> bool:
    with qemu_img.Run() as run:
        found = json.loads(run(["info", "--output=json", layers(disk, run, alone=True)], timeout_seconds=60))
    return any(one["name"] == CHECKPOINT for one in found.get("snapshots", ()))


def create_checkpoint(disk: DiskFile) -> None:
    """Remember the disk as it is; one that is remembered already stays so."""
    if not has_checkpoint(disk):
        _run_snapshot_command(disk, "-c")


def restore_checkpoint(disk: DiskFile) -> None:
    """The disk is again as it was remembered, size and all; then that is forgotten."""
    if has_checkpoint(disk):
        _run_snapshot_command(disk, "-a")
        delete_checkpoint(disk)


def delete_checkpoint(disk: DiskFile) -> None:
    """Content when nothing is remembered."""
    if has_checkpoint(disk):
        _run_snapshot_command(disk, "-d")


def delete_running_checkpoint(control: Path, disks: int) -> None:
    """The same while the guest runs, for its first `disks` disks; there may be fewer."""

    async def converse(client: QMPClient) -> None:
        for number in range(disks):
            with contextlib.suppress(ExecuteError):  # there is none of that name
                await client.execute(
                    "blockdev-snapshot-delete-internal-sync", {"device": f"disk{number}", "name": CHECKPOINT}
                )

    qmp.run_session(control, converse, timeout_seconds=300)


def grow(disk: DiskFile, size_bytes: int) -> None:
    """The disk has at least this size."""
    if virtual_bytes(disk) < size_bytes:
        with qemu_img.Run() as run:
            run(["resize", "-q", layers(disk, run), str(size_bytes)], timeout_seconds=300)


def copy(disk: DiskFile, target: Path) -> None:
    """The whole disk in one qcow2 file."""
    target.unlink(missing_ok=True)
    with qemu_img.Run() as run:
        words = ["convert", "-q", "-O", "qcow2", layers(disk, run), run.create(target)]
        run(words, timeout_seconds=COPY_SECONDS)


def copy_running(control: Path, size_bytes: int, target: Path, is_interrupted: Callable[[], bool]) -> None:
    """The whole first disk of a running guest, as it is at one moment, while the guest goes on.

    Raises HypervisorError, also when somebody `is_hurried`.
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
                raise HypervisorError(f"The disk could not be copied: {job['error'] if job else 'it was given up'}.")
            return
        if is_interrupted():
            raise HypervisorError("The copy of the disk was given up for something more urgent.")
        await asyncio.sleep(0.1)


async def _job(client: QMPClient) -> dict[str, Any] | None:
    jobs: Any = await client.execute("query-jobs")
    return next((job for job in jobs if job["id"] == JOB), None)


async def _clean_up(client: QMPClient) -> None:
    """What this copy, or one that was cut short, has left in qemu."""
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
