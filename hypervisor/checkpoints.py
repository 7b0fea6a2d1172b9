"""A disk as it was: kept inside its own file while a resize may be reverted, or copied into a file of its own.

Only for machines that do not run, unless it says otherwise. qemu-img is told every layer and its format.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient

from hypervisor import qmp
from hypervisor.disks import DiskFile, run
from hypervisor.errors import HypervisorError

NAME = "before-resize"
JOB = "snapshot"
COPY_SECONDS = 4 * 3600.0


def layers(disk: DiskFile) -> str:
    """The disk as qemu-img takes it: nothing is read from the file about what it stands on."""
    node: dict[str, Any] = {"driver": disk.format, "file": {"driver": "file", "filename": str(disk.path)}}
    if disk.format == "qcow2":
        node["backing"] = None
        if disk.base is not None:
            base: dict[str, Any] = {"driver": disk.base_format}
            base["file"] = {"driver": "file", "filename": str(disk.base)}
            if disk.base_format == "qcow2":
                base["backing"] = None
            node["backing"] = base
    return f"json:{json.dumps(node)}"


def virtual_bytes(disk: DiskFile) -> int:
    """The size that the guest sees."""
    return int(_info(disk)["virtual-size"])


def virtual_bytes_shared(disk: DiskFile) -> int:
    """The same while somebody writes to the disk."""
    return int(_info(disk, shared=True)["virtual-size"])


def has_checkpoint(disk: DiskFile) -> bool:
    return any(one["name"] == NAME for one in _info(disk).get("snapshots", ()))


def keep(disk: DiskFile) -> None:
    """Remember the disk as it is; one that is remembered already stays so."""
    if not has_checkpoint(disk):
        run(["qemu-img", "snapshot", "-c", NAME, layers(disk)], timeout_seconds=300)


def restore(disk: DiskFile) -> None:
    """The disk is again as it was remembered, size and all; then that is forgotten."""
    if has_checkpoint(disk):
        run(["qemu-img", "snapshot", "-a", NAME, layers(disk)], timeout_seconds=300)
        forget(disk)


def forget(disk: DiskFile) -> None:
    """Content when nothing is remembered."""
    if has_checkpoint(disk):
        run(["qemu-img", "snapshot", "-d", NAME, layers(disk)], timeout_seconds=300)


def forget_running(control: Path, disks: int) -> None:
    """The same while the guest runs, for its first `disks` disks; there may be fewer."""

    async def converse(client: QMPClient) -> None:
        for number in range(disks):
            with contextlib.suppress(ExecuteError):  # there is none of that name
                await client.execute(
                    "blockdev-snapshot-delete-internal-sync", {"device": f"disk{number}", "name": NAME}
                )

    qmp.talk(control, converse, timeout_seconds=300)


def grow(disk: DiskFile, size_bytes: int) -> None:
    """The disk has at least this size."""
    if virtual_bytes(disk) < size_bytes:
        run(["qemu-img", "resize", "-q", layers(disk), str(size_bytes)], timeout_seconds=300)


def copy(disk: DiskFile, target: Path) -> None:
    """The whole disk in one qcow2 file."""
    target.unlink(missing_ok=True)
    run(["qemu-img", "convert", "-q", "-O", "qcow2", layers(disk), str(target)], timeout_seconds=COPY_SECONDS)
    target.chmod(0o600)


def copy_running(control: Path, size_bytes: int, target: Path, is_hurried: Callable[[], bool]) -> None:
    """The whole first disk of a running guest, as it is at one moment, while the guest goes on.

    Raises HypervisorError, also when somebody `is_hurried`.
    """
    target.unlink(missing_ok=True)
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(target), str(size_bytes)], timeout_seconds=60)
    target.chmod(0o600)
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
            await _wait(client, is_hurried)
        finally:
            await _clean_up(client)

    try:
        qmp.talk(control, converse, timeout_seconds=COPY_SECONDS)
    finally:
        os.close(descriptor)


async def _wait(client: QMPClient, is_hurried: Callable[[], bool]) -> None:
    while True:
        job = await _job(client)
        if job is None or job["status"] == "concluded":
            if job is None or job.get("error"):
                raise HypervisorError(f"The disk could not be copied: {job['error'] if job else 'it was given up'}.")
            return
        if is_hurried():
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


def _info(disk: DiskFile, *, shared: bool = False) -> dict[str, Any]:
    alone = layers(replace(disk, base=None))  # `info` does not look below
    words = ["qemu-img", "info", "--output=json", *(["--force-share"] if shared else []), alone]
    found: dict[str, Any] = json.loads(run(words, timeout_seconds=60))
    return found
