"""Conductor service: database access on behalf of one host, in the process that has the database.

The agent on the database's machine calls it directly; remote agents reach it through `app.conductor_server` with
`compute_agent.conductor_client`, which has the same interface.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from app.core.clock import Clock
from app.core.settings import Settings
from app.db.database import Database, is_unreachable
from compute_api import system_metadata
from compute_api.access import host_credentials
from compute_api.hosts import hosts
from compute_api.models import Operation, Server
from compute_api.operations import completion, migration_workflow, operations, reaper
from compute_api.operations import snapshots as operations_snapshots
from compute_api.operations.machine_spec import machine_spec
from compute_api.operations.operations import Notify
from compute_api.rpc.messages import ClaimedOperation, DesiredServer, HostState, Outcome
from compute_api.states import DELETE, REBOOT_HARD, PowerState, SideTask, TaskState, VmState
from hypervisor.api.spec import HostReport, MachineSpec, SnapshotFile
from image_api.imports import snapshots
from image_api.ingest.ingest import read_pieces
from image_api.models import Image
from image_api.states import ImageStatus
from image_api.stores.factory import make_store
from image_api.stores.file import Store

INTERRUPTING = (DELETE.task, REBOOT_HARD.task)


class LocalConductor:
    """Implements Conductor on the control plane's database.

    `notify` informs other hosts of operations that are rescheduled to them. With `reap_other_hosts`, operations of
    hosts that are down are reaped too. With `require_credential`, a host may register only between `sixstack host add`
    and `sixstack host remove`.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        settings: Settings,
        store: Store | None = None,
        *,
        notify: Notify | None = None,
        reap_other_hosts: bool = False,
        require_credential: bool = False,
    ) -> None:
        self._notify = notify
        self._reap_other_hosts = reap_other_hosts
        self._require_credential = require_credential
        self._database = database
        self._store = store or make_store(settings)
        self._clock = clock
        self._settings = settings
        self._host = settings.host_name

    def register(self, report: HostReport) -> None:
        """Register the host with its capacity. Raises Forbidden for another host's report."""
        if report.name != self._host:
            raise errors.Forbidden(f"{self._host} may not report as {report.name}.")
        with self._transaction() as session:
            if self._require_credential and not host_credentials.is_registered(session, self._host):
                raise errors.Forbidden(f"{self._host} was not added to this cloud, or was removed.")
            hosts.register(session, self._clock.now(), report, self._settings)

    def heartbeat(self) -> None:
        """Record a heartbeat of this host."""
        with self._transaction() as session:
            hosts.record_heartbeat(session, self._clock.now(), self._host)

    def requeue(self) -> int:
        """Queue operations again that were running when the agent ended; returns how many."""
        with self._transaction() as session:
            return operations.requeue_running(session, self._host)

    def waiting(self) -> Sequence[int]:
        """Return the ids of queued operations."""
        with self._reading() as session:
            return operations.list_queued(session, self._host)

    def claim(self, operation_id: int) -> ClaimedOperation | None:
        """Claim an operation. None when it is not queued, must wait for another one, or is superseded, which closes
        it."""
        now = self._clock.now()
        with self._transaction() as session:
            operation = operations.claim(session, now, operation_id, self._host)
            if operation is None:
                return None
            server = session.scalar(select(Server).where(Server.id == operation.server_id))
            there = server is not None and not server.deleted
            claims = operation.task not in list(SideTask)
            if server is not None and there and claims and server.generation != operation.generation:
                completion.mark_superseded(session, now, operation)
                return None
            spec = machine_spec(session, server) if server is not None and there else None
        return ClaimedOperation(
            operation.id,
            operation.task,
            operation.server_id,
            spec,
            operation.arguments,
            store_image=lambda snapshot: self._store_image(operation, snapshot),
            image_is_stored=lambda: self.image_is_stored(operation.id),
            request_id=operation.request_id,
        )

    def release(self, operation_id: int) -> None:
        """Queue the operation again after an error of the agent; limited by MAX_ATTEMPTS."""
        with self._transaction() as session:
            operations.release(session, operation_id, self._host)

    def finish(self, operation: ClaimedOperation, outcome: Outcome) -> None:
        """Report the outcome of an operation."""
        self.report(operation.operation_id, outcome)

    def report(self, operation_id: int, outcome: Outcome) -> None:
        """Record the outcome of an operation that is running on this host; later reports are ignored."""
        with self._writing() as session:
            operation = operations.find_running(session, operation_id, self._host)
            if operation is not None:
                completion.finish(session, self._clock.now(), operation, outcome)

    def interrupted(self) -> Sequence[str]:
        """Return servers with a queued operation that interrupts the running one."""
        with self._reading() as session:
            return operations.list_interrupted_servers(session, self._host, INTERRUPTING)

    def host_state(self) -> HostState:
        """Return the desired state of this host, and fail operations past their deadline."""
        now, grace = self._clock.now(), self._settings.soft_reboot_seconds
        with self._reading() as session:
            late = any(reaper.is_overdue(one, now, grace) for one in operations.list_running(session, self._host))
            waiting = operations.list_queued(session, self._host)
            interrupted = operations.list_interrupted_servers(session, self._host, INTERRUPTING) if waiting else ()
            servers, images_in_use = self._desired(session)
        overdue: Sequence[str] = ()
        if late:
            with self._writing() as session:
                overdue = reaper.fail_overdue(session, now, grace, self._host)
        if self._reap_other_hosts:
            reaper.reap(self._database, now, grace, store=self._store, notify=self._notify)
        return HostState(waiting, interrupted, overdue, servers, images_in_use)

    def _desired(self, session: Session) -> tuple[Sequence[DesiredServer], frozenset[str]]:
        """Return the servers of this host and those migrating to or from it, which reconciliation leaves alone, and
        the images that the former are based on."""
        columns = (Server.id, Server.vm_state, Server.task_state, Server.generation, Server.power_state)
        query = select(*columns, Server.image_id, Server.system_metadata)
        own: list[DesiredServer] = []
        in_use: set[str] = set()
        for *row, image_id, remembered in session.execute(
            query.where(Server.host == self._host, Server.deleted.is_(False))
        ):
            own.append(DesiredServer(*row))
            in_use.update((image_id, *system_metadata.image_ids(remembered)))
        others = [
            DesiredServer(one.id, one.vm_state, TaskState.MIGRATING, one.generation, one.power_state)
            for one in migration_workflow.list_migrating_servers(session, self._host)
        ]
        return own + others, frozenset(in_use)

    def spec(self, machine_id: str) -> MachineSpec | None:
        """Return the machine spec of a server that belongs to this host or has an open operation here, else None."""
        with self._reading() as session:
            server = session.scalar(select(Server).where(Server.id == machine_id, Server.deleted.is_(False)))
            if server is None:
                return None
            if server.host != self._host and not operations.has_open(session, self._host, machine_id):
                coming = {one.id for one in migration_workflow.list_migrating_servers(session, self._host)}
                if machine_id not in coming:
                    return None
            return machine_spec(session, server)

    def report_state(self, server: DesiredServer, vm_state: VmState, power_state: PowerState, why: str) -> None:
        """Record an actual state that differs from the desired one, unless an action has begun since."""
        with self._transaction() as session:
            row = session.scalar(select(Server).where(Server.id == server.id, Server.host == self._host))
            if row is not None and row.generation == server.generation:
                completion.apply_reported_state(session, self._clock.now(), row, vm_state, power_state, why)

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with _unavailable_if_unreachable(), self._database.transaction() as session:
            yield session

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with _unavailable_if_unreachable(), self._database.reading() as session:
            yield session

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self._transaction() as session:
            session.info[completion.IMAGE_STORE] = self._store
            session.info["notify"] = self._notify
            yield session

    def _store_image(self, operation: Operation, snapshot: SnapshotFile) -> None:
        """Store a snapshot. Raises SixstackError; NotFound when the image was deleted in the meantime."""
        with self._reading() as session:
            making = operations_snapshots.expected_snapshot(session, operation, snapshot.disk_format)
        with snapshot.path.open("rb", buffering=0) as file:
            pieces = read_pieces(file.read)
            snapshots.store_snapshot(
                self._database, self._clock, self._store, making, pieces, self._settings.image_quota_gib
            )

    def image_is_stored(self, operation_id: int) -> bool:
        """Return whether the image that an operation of this host creates is complete."""
        with self._reading() as session:
            operation = operations.find_running(session, operation_id, self._host)
            image_id = operation.arguments.get("image_id") if operation is not None else None
            status = session.scalar(select(Image.status).where(Image.id == image_id))
        return status == ImageStatus.ACTIVE


@contextmanager
def _unavailable_if_unreachable() -> Iterator[None]:
    """Raise Unavailable for errors of the database driver that a retry may resolve."""
    try:
        yield
    except Exception as error:
        if isinstance(error, errors.SixstackError) or not is_unreachable(error):
            raise
        raise errors.Unavailable(f"The database is unreachable: {type(error).__name__}.") from error
