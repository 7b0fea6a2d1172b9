"""The agent's side of the database: what is to be done here, and where to write down how it went.

An agent without database access (many hosts) has a desk that speaks to the control plane instead; the rest of the
agent does not know the difference.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import errors
from app.clock import Clock
from app.db import Database
from app.settings import Settings
from compute_api import aside, backups, finishing, host_credentials, hosts, migration_steps, operations, sweeping
from compute_api.finishing import Outcome
from compute_api.machine_spec import machine_spec
from compute_api.models import Operation, Server
from compute_api.operations import Nudge
from compute_api.states import DELETE, REBOOT_HARD, PowerState, SideTask, TaskState, VmState
from hypervisor.machine import HostReport, MachineSpec, SnapshotFile
from image_api import snapshots
from image_api.ingest import pieces_of
from image_api.models import Image
from image_api.states import ImageStatus
from image_api.store import Store
from image_api.stores import make_store

INTERRUPTING = (DELETE.task, REBOOT_HARD.task)


@dataclass(frozen=True, slots=True)
class Work:
    """One claimed operation. `spec` is None when the server is gone and only its remains may be here. `store_image`
    fills the image that a snapshot is for; `image_is_stored` says that this was done before."""

    operation_id: int
    task: str
    machine_id: str
    spec: MachineSpec | None
    arguments: dict[str, Any]
    store_image: Callable[[SnapshotFile], None]
    image_is_stored: Callable[[], bool]
    request_id: str = ""
    """Of the API request that asked for it, for logs; empty from a control plane of an earlier version."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One server that belongs on this host, as the control plane sees it."""

    id: str
    vm_state: str
    task_state: str | None
    generation: int
    power_state: int = PowerState.RUNNING


@dataclass(frozen=True, slots=True)
class Survey:
    """All that a host wants to know when it looks around: operations that nobody has begun, servers for which something
    waits that may interrupt what is under way, servers that it was given up on as it took too long, every server that
    belongs there or may come back, and the images that those are made from."""

    waiting: Sequence[int]
    hurried: Sequence[str]
    overdue: Sequence[str]
    wanted: Sequence[Wanted]
    images_in_use: frozenset[str]


class Desk(Protocol):
    """Where an agent gets its work and hands in its reports."""

    def register(self, report: HostReport) -> None: ...

    def heartbeat(self) -> None: ...

    def requeue(self) -> int: ...

    def waiting(self) -> Sequence[int]: ...

    def claim(self, operation_id: int) -> Work | None: ...

    def give_back(self, operation_id: int) -> None: ...

    def finish(self, work: Work, outcome: Outcome) -> None: ...

    def hurried(self) -> Sequence[str]: ...

    def survey(self) -> Survey: ...

    def spec(self, machine_id: str) -> MachineSpec | None: ...

    def tell(self, wanted: Wanted, vm_state: VmState, power_state: PowerState, why: str) -> None: ...


class LocalDesk:
    """The desk of an agent that shares the control plane's database.

    `nudge` tells other hosts what they get to do when this one cannot. One that `sweeps` looks after hosts that are
    down, too. A host that must be `added` is made known only between `sixstack host add` and `remove`.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        settings: Settings,
        store: Store | None = None,
        *,
        nudge: Nudge | None = None,
        sweeps: bool = False,
        added: bool = False,
    ) -> None:
        self._nudge = nudge
        self._sweeps = sweeps
        self._added = added
        self._database = database
        self._store = store or make_store(settings)
        self._clock = clock
        self._settings = settings
        self._host = settings.host_name

    def register(self, report: HostReport) -> None:
        """Make the host known, with its size. Raises Forbidden for another host than this one."""
        if report.name != self._host:
            raise errors.Forbidden(f"{self._host} cannot speak for {report.name}.")
        with self._database.transaction() as session:
            if self._added and not host_credentials.known(session, self._host):
                raise errors.Forbidden(f"{self._host} was not added to this cloud, or was removed.")
            hosts.register(session, self._clock.now(), report, self._settings)

    def heartbeat(self) -> None:
        """This host is alive."""
        with self._database.transaction() as session:
            hosts.seen(session, self._clock.now(), self._host)

    def requeue(self) -> int:
        """What this host had begun before the agent died waits again; returns how much."""
        with self._database.transaction() as session:
            return operations.requeue_running(session, self._host)

    def waiting(self) -> Sequence[int]:
        """Operations that nobody has begun."""
        with self._database.reading() as session:
            return operations.waiting(session, self._host)

    def claim(self, operation_id: int) -> Work | None:
        """Take the operation; None when it is taken, must wait for another one, or is overtaken (then it is closed)."""
        now = self._clock.now()
        with self._database.transaction() as session:
            operation = operations.claim(session, now, operation_id, self._host)
            if operation is None:
                return None
            server = session.scalar(select(Server).where(Server.id == operation.server_id))
            there = server is not None and not server.deleted
            claims = operation.task not in list(SideTask)
            if server is not None and there and claims and server.generation != operation.generation:
                finishing.overtaken(session, now, operation)
                return None
            spec = machine_spec(session, server) if server is not None and there else None
        return Work(
            operation.id,
            operation.task,
            operation.server_id,
            spec,
            operation.arguments,
            store_image=lambda snapshot: self._store_image(operation, snapshot),
            image_is_stored=lambda: self.image_is_stored(operation.id),
            request_id=operation.request_id,
        )

    def give_back(self, operation_id: int) -> None:
        """It could not be finished for reasons of our own: to be done again, but not for ever."""
        with self._database.transaction() as session:
            operations.give_back(session, operation_id, self._host)

    def finish(self, work: Work, outcome: Outcome) -> None:
        """Hand in how it went."""
        self.report(work.operation_id, outcome)

    def report(self, operation_id: int, outcome: Outcome) -> None:
        """Hand in how an operation of this host went: the first report counts, and only what this host has begun."""
        with self._writing() as session:
            operation = operations.under_way(session, operation_id, self._host)
            if operation is not None:
                finishing.finish(session, self._clock.now(), operation, outcome)

    def hurried(self) -> Sequence[str]:
        """Servers for which something waits that may interrupt what is under way."""
        with self._database.reading() as session:
            return operations.interrupted(session, self._host, INTERRUPTING)

    def survey(self) -> Survey:
        """Look at everything of this host at once, and give up on what takes longer than it may."""
        now, grace = self._clock.now(), self._settings.soft_reboot_seconds
        with self._database.reading() as session:
            late = any(sweeping.is_late(one, now, grace) for one in operations.running(session, self._host))
            waiting = operations.waiting(session, self._host)
            hurried = operations.interrupted(session, self._host, INTERRUPTING) if waiting else ()
            wanted, images_in_use = self._wanted(session)
        overdue: Sequence[str] = ()
        if late:
            with self._writing() as session:
                overdue = sweeping.fail_overdue(session, now, grace, self._host)
        if self._sweeps:
            sweeping.sweep(self._database, now, grace, store=self._store, nudge=self._nudge)
        return Survey(waiting, hurried, overdue, wanted, images_in_use)

    def _wanted(self, session: Session) -> tuple[Sequence[Wanted], frozenset[str]]:
        """Every server that belongs here, those that come or may come back here, which are left alone, and the images
        that the former are made from."""
        columns = (Server.id, Server.vm_state, Server.task_state, Server.generation, Server.power_state)
        query = select(*columns, Server.image_id, Server.aside)
        own: list[Wanted] = []
        in_use: set[str] = set()
        for *row, image_id, remembered in session.execute(
            query.where(Server.host == self._host, Server.deleted.is_(False))
        ):
            own.append(Wanted(*row))
            in_use.update((image_id, *aside.images(remembered)))
        others = [
            Wanted(one.id, one.vm_state, TaskState.MIGRATING, one.generation, one.power_state)
            for one in migration_steps.guests(session, self._host)
        ]
        return own + others, frozenset(in_use)

    def spec(self, machine_id: str) -> MachineSpec | None:
        """The document of a server that belongs here, or for which something is to be done here; None for others."""
        with self._database.reading() as session:
            server = session.scalar(select(Server).where(Server.id == machine_id, Server.deleted.is_(False)))
            if server is None:
                return None
            if server.host != self._host and not operations.concerns(session, self._host, machine_id):
                coming = {one.id for one in migration_steps.guests(session, self._host)}
                if machine_id not in coming:
                    return None
            return machine_spec(session, server)

    def tell(self, wanted: Wanted, vm_state: VmState, power_state: PowerState, why: str) -> None:
        """A server was found in another state than was wanted, and nobody is acting on it."""
        with self._database.transaction() as session:
            server = session.scalar(select(Server).where(Server.id == wanted.id, Server.host == self._host))
            if server is not None and server.generation == wanted.generation:
                finishing.reported(session, self._clock.now(), server, vm_state, power_state, why)

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self._database.transaction() as session:
            session.info[finishing.STORE] = self._store
            session.info["nudge"] = self._nudge
            yield session

    def _store_image(self, operation: Operation, snapshot: SnapshotFile) -> None:
        """Raises SixstackError; NotFound when somebody has deleted the image meanwhile."""
        with self._database.reading() as session:
            making = backups.snapshot(session, operation, snapshot.disk_format)
        with snapshot.path.open("rb", buffering=0) as file:
            pieces = pieces_of(file.read)
            snapshots.keep(self._database, self._clock, self._store, making, pieces, self._settings.image_quota_gib)

    def image_is_stored(self, operation_id: int) -> bool:
        """Whether the image that an operation of this host is to make is complete."""
        with self._database.reading() as session:
            operation = operations.under_way(session, operation_id, self._host)
            image_id = operation.arguments.get("image_id") if operation is not None else None
            status = session.scalar(select(Image.status).where(Image.id == image_id))
        return status == ImageStatus.ACTIVE
