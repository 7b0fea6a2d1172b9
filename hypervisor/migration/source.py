"""Migration source: mirrors disks of the running guest, sends its memory, and hands over while the guest is paused.

    mirror ─▶ mirrors ready ─▶ memory ─▶ pre-switchover ─▶ mirrors end ─▶ continue ─▶ completed: runs on the target
                                         (guest paused)
      └──────────── cancellable ───────────────────┘

After `migrate-continue` the migration is not cancellable: the target resumes the guest as soon as it has received
everything, and two copies of a guest must never run. After a crash of the agent a retry queries the state of qemu and
continues from there.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient

from hypervisor.api.errors import HypervisorError
from hypervisor.api.migration import MigrationProgress, MigrationTarget
from hypervisor.qemu import qmp, tls

SEND_SECONDS = 8 * 3600.0
SLICE_SECONDS = 2.0
LOOK_SECONDS = 0.05
BYTES_PER_SECOND = 1 << 36
CANCELLABLE = ("setup", "active", "pre-switchover")
UNDER_WAY = (*CANCELLABLE, "device")
# Maximum downtime of a forced completion.
UNLIMITED_DOWNTIME_MS = 2_000_000
DEFAULT_DOWNTIME_MS = 300
CAPABILITIES = ("pause-before-switchover", "auto-converge")


@dataclass(frozen=True)
class MigrationSource:
    """One outgoing migration.

    `disks` maps export names to local block nodes. `is_interrupted` requests the cancellation of the migration.
    """

    control: Path
    key_directory: Path
    landing: MigrationTarget
    scope: str
    disks: dict[str, str]
    is_interrupted: Callable[[], bool]
    report_progress: Callable[[MigrationProgress], None]

    def send_disks(self) -> None:
        """Mirror all disks and return when the mirrors are ready. Raises HypervisorError."""
        self._talk(self._begin_mirrors)
        self._poll(self._are_mirrors_ready)

    def end_mirrors(self) -> None:
        """Complete the mirrors: the target has the present content of the disks."""
        self._talk(self._end_mirrors)

    def send_memory(self) -> None:
        """Send the memory and hand over the guest, paused. Raises HypervisorError; the guest then continues here."""
        if not self.is_sending_memory():
            self._talk(self._begin_memory)
        self._poll(self._advance)

    def is_transferred(self) -> bool:
        """Whether an earlier attempt has completed the transfer."""
        return bool(self._talk(_is_transferred))

    def is_sending_memory(self) -> bool:
        """Whether an earlier attempt has started to send memory."""
        return bool(self._talk(_query_migration)["status"] in UNDER_WAY)

    async def _begin_mirrors(self, client: QMPClient) -> None:
        present = {job["id"] for job in await _query_mirrors(client)}
        if all(_job_id(node) in present for node in self.disks.values()):
            return
        await clean_up(client)
        await tls.add_client_credentials(client, self.key_directory)
        where = {"type": "inet", "host": self._host(), "port": str(self.landing.disk_port)}
        for name, node in self.disks.items():
            remote = {"driver": "nbd", "node-name": _remote_node(node), "server": where, "export": name}
            await client.execute("blockdev-add", {**remote, "tls-creds": tls.OBJECT, "discard": "unmap"})
            job = {"job-id": _job_id(node), "device": node, "target": _remote_node(node), "auto-dismiss": False}
            how = {"sync": "full" if name in self.landing.whole else "top", "copy-mode": "write-blocking"}
            await client.execute("blockdev-mirror", job | how)

    async def _are_mirrors_ready(self, client: QMPClient) -> bool:
        self._raise_if_interrupted()
        return all(job["status"] == "ready" for job in await self._check_mirrors(client))

    async def _advance(self, client: QMPClient) -> bool:
        """Advance the migration by at most one phase; True when it is completed."""
        progress = await _query_migration(client)
        match progress["status"]:
            case "completed":
                return True
            case "setup" | "active":
                self._raise_if_interrupted()
                await self._check_mirrors(client)
            case "pre-switchover":
                self._raise_if_interrupted()
                await self._end_mirrors(client)
                await client.execute("migrate-continue", {"state": "pre-switchover"})
            case "none" | "failed" | "cancelled":
                reason = progress.get("error-desc", progress["status"])
                raise HypervisorError(f"The guest's memory could not be sent: {reason}.")
        return False

    async def _begin_memory(self, client: QMPClient) -> None:
        await _set_capabilities(client, on=True)
        await client.execute("migrate-set-parameters", {"tls-creds": tls.OBJECT, "max-bandwidth": BYTES_PER_SECOND})
        await client.execute("migrate", {"uri": f"tcp:[{self._host()}]:{self.landing.memory_port}"})

    async def _end_mirrors(self, client: QMPClient) -> None:
        """Complete the mirrors of a paused guest. A failed mirror fails the migration."""
        await self._check_mirrors(client)
        for job in await _query_mirrors(client):
            if job["status"] == "ready":
                await client.execute("block-job-cancel", {"device": job["id"]})
        while any(job["status"] != "concluded" for job in await _query_mirrors(client)):
            await asyncio.sleep(0.01)
        for job in await _query_mirrors(client):
            if job.get("error"):
                raise HypervisorError(f"A disk could not be sent: {job['error']}.")
            await client.execute("job-dismiss", {"id": job["id"]})
        for node in self.disks.values():
            with contextlib.suppress(ExecuteError):  # removed before
                await client.execute("blockdev-del", {"node-name": _remote_node(node)})

    async def _check_mirrors(self, client: QMPClient) -> list[dict[str, Any]]:
        jobs = await _query_mirrors(client)
        for job in jobs:
            if job.get("error") or job["status"] in ("aborting", "null"):
                raise HypervisorError(f"A disk could not be sent: {job.get('error', 'the copy was cancelled')}.")
        if len(jobs) < len(self.disks):
            raise HypervisorError("A disk could not be sent: the copy has ended.")
        memory = (await _query_migration(client)).get("ram", {})
        done, total = (sum(job[f"{word}-progress"] for job in jobs) for word in ("current", "total"))
        self.report_progress(
            MigrationProgress(
                memory_total=memory.get("total", 0),
                memory_processed=memory.get("transferred", 0),
                memory_remaining=memory.get("remaining", 0),
                disk_total=total,
                disk_processed=done,
                disk_remaining=total - done,
            )
        )
        return jobs

    def _raise_if_interrupted(self) -> None:
        if self.is_interrupted():
            raise HypervisorError("The migration was cancelled by a more urgent operation.")

    def _host(self) -> str:
        """Return the address of the target; a link-local address gets the local interface as scope."""
        address = self.landing.address
        return f"{address}%{self.scope}" if address.is_link_local else str(address)

    def _poll(self, step: Callable[[QMPClient], Any]) -> None:
        """Run the step until it returns True, in short QMP sessions: the socket takes one client at a time."""
        deadline = time.monotonic() + SEND_SECONDS

        async def converse(client: QMPClient) -> bool:
            end = time.monotonic() + SLICE_SECONDS
            while time.monotonic() < end:
                if await step(client):
                    return True
                await asyncio.sleep(LOOK_SECONDS)
            return False

        while not self._talk(converse):
            if time.monotonic() > deadline:
                raise HypervisorError("The migration took too long.")

    def _talk(self, conversation: Callable[[QMPClient], Any]) -> Any:
        return qmp.run_session(self.control, conversation, timeout_seconds=300)


async def clean_up(client: QMPClient) -> None:
    """Remove the jobs and nodes of this or an interrupted migration. The guest continues unless it is transferred."""
    if (await _query_migration(client))["status"] in CANCELLABLE:
        await client.execute("migrate_cancel")
    while (await _query_migration(client))["status"] in (*UNDER_WAY, "cancelling"):
        await asyncio.sleep(0.02)
    for job in await _query_mirrors(client):
        with contextlib.suppress(ExecuteError):
            await client.execute("block-job-cancel", {"device": job["id"], "force": True})
    while jobs := await _query_mirrors(client):
        for job in jobs:
            if job["status"] == "concluded":
                await client.execute("job-dismiss", {"id": job["id"]})
        await asyncio.sleep(0.02)
    nodes: Any = await client.execute("query-named-block-nodes", {"flat": True})
    for node in nodes:
        if node["node-name"].startswith("to-"):
            await client.execute("blockdev-del", {"node-name": node["node-name"]})
    await _set_capabilities(client, on=False)
    await client.execute("migrate-set-parameters", {"tls-creds": "", "downtime-limit": DEFAULT_DOWNTIME_MS})
    with contextlib.suppress(ExecuteError):  # no such object
        await client.execute("object-del", {"id": tls.OBJECT})


def cancel(control: Path) -> None:
    """Cancel the migration. A transferred guest stays paused, because it may run on the target."""
    qmp.run_session(control, clean_up, timeout_seconds=300)


def resume(control: Path) -> None:
    """Resume the guest. Only for guests that do not run on the target."""

    async def converse(client: QMPClient) -> None:
        status: Any = await client.execute("query-status")
        if status["status"] in ("postmigrate", "finish-migrate", "paused"):
            await client.execute("cont")

    qmp.run_session(control, converse)


def force_migration_completion(control: Path) -> None:
    """Allow unlimited downtime, so that the migration converges however much the guest writes."""

    async def converse(client: QMPClient) -> None:
        await client.execute("migrate-set-parameters", {"downtime-limit": UNLIMITED_DOWNTIME_MS})

    qmp.run_session(control, converse)


def query_machine_identity(control: Path) -> tuple[str, str | None]:
    """Return machine type and VM generation id of a running qemu."""

    async def converse(client: QMPClient) -> tuple[str, str | None]:
        machine: Any = await client.execute("qom-get", {"path": "/machine", "property": "type"})
        generation: Any = await client.execute("query-vm-generation-id")
        return machine.removesuffix("-machine"), generation["guid"]

    return qmp.run_session(control, converse)


async def _set_capabilities(client: QMPClient, *, on: bool) -> None:
    """Set the migration capabilities. They are cleared afterwards: a suspend must not pause at the switchover."""
    switches = [{"capability": name, "state": on} for name in CAPABILITIES]
    await client.execute("migrate-set-capabilities", {"capabilities": switches})


async def _is_transferred(client: QMPClient) -> bool:
    status: Any = await client.execute("query-status")
    return bool(status["status"] == "postmigrate" and (await _query_migration(client))["status"] == "completed")


async def _query_migration(client: QMPClient) -> dict[str, Any]:
    """Query the outgoing migration. The completed incoming migration of a received guest counts as none."""
    answer: Any = await client.execute("query-migrate")
    status: Any = await client.execute("query-status")
    if answer.get("status") == "completed" and status["status"] not in ("postmigrate", "finish-migrate"):
        return {"status": "none"}
    return {"status": "none", **answer}


async def _query_mirrors(client: QMPClient) -> list[dict[str, Any]]:
    jobs: Any = await client.execute("query-jobs")
    return [job for job in jobs if job["id"].startswith("mirror-")]


def _job_id(node: str) -> str:
    return f"mirror-{node}"


def _remote_node(node: str) -> str:
    return f"to-{node}"
