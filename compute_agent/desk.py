"""The agent's side of the database: what is to be done here, and where to write down how it went.

An agent without database access (many hosts) has a desk that speaks to the control plane instead; the rest of the
agent does not know the difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import select

from app.clock import Clock
from app.db import Database
from app.settings import Settings
from compute_api import hosts, operations, servers
from compute_api.machine_spec import machine_spec
from compute_api.models import Operation, Server
from compute_api.servers import Outcome
from compute_api.states import PowerState, VmState
from hypervisor.machine import HostReport, MachineSpec


@dataclass(frozen=True, slots=True)
class Work:
    """One claimed operation. `spec` is None when the server is gone and only its remains may be here."""

    operation: Operation
    task: str
    machine_id: str
    spec: MachineSpec | None
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One server that belongs on this host, as the control plane sees it."""

    id: str
    vm_state: str
    task_state: str | None
    generation: int


class Desk(Protocol):
    """Where an agent gets its work and hands in its reports."""

    def register(self, report: HostReport) -> None: ...

    def heartbeat(self) -> None: ...

    def requeue(self) -> int: ...

    def waiting(self) -> Sequence[int]: ...

    def claim(self, operation_id: int) -> Work | None: ...

    def finish(self, work: Work, outcome: Outcome) -> None: ...

    def wanted(self) -> Sequence[Wanted]: ...

    def spec(self, machine_id: str) -> MachineSpec | None: ...

    def tell(self, wanted: Wanted, vm_state: VmState, power_state: PowerState, why: str) -> None: ...

    def images_in_use(self) -> frozenset[str]: ...


class LocalDesk:
    """The desk of an agent that shares the control plane's database."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings
        self._host = settings.host_name

    def register(self, report: HostReport) -> None:
        """Make the host known, with its size."""
        with self._database.transaction() as session:
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
            operation = operations.claim(session, now, operation_id)
            if operation is None:
                return None
            server = session.scalar(select(Server).where(Server.id == operation.server_id))
            if server is not None and not server.deleted and server.generation != operation.generation:
                operations.close(session, now, operation.id, "superseded")
                operations.end_action(
                    session, now, server.id, operation.request_id, "Overtaken by another action before it began"
                )
                return None
            spec = machine_spec(session, server) if server is not None and not server.deleted else None
            return Work(operation, operation.task, operation.server_id, spec, operation.arguments)

    def finish(self, work: Work, outcome: Outcome) -> None:
        """Hand in how it went."""
        with self._database.transaction() as session:
            servers.finish(session, self._clock.now(), work.operation, outcome)

    def wanted(self) -> Sequence[Wanted]:
        """Every server that belongs here."""
        query = select(Server.id, Server.vm_state, Server.task_state, Server.generation)
        with self._database.reading() as session:
            rows = session.execute(query.where(Server.host == self._host, Server.deleted.is_(False)))
            return [Wanted(*row) for row in rows]

    def spec(self, machine_id: str) -> MachineSpec | None:
        """The document of a server that belongs here."""
        with self._database.reading() as session:
            server = session.scalar(select(Server).where(Server.id == machine_id, Server.deleted.is_(False)))
            return machine_spec(session, server) if server else None

    def tell(self, wanted: Wanted, vm_state: VmState, power_state: PowerState, why: str) -> None:
        """A server was found in another state than was wanted, and nobody is acting on it."""
        with self._database.transaction() as session:
            server = session.scalar(select(Server).where(Server.id == wanted.id))
            if server is not None and server.generation == wanted.generation:
                servers.reported(session, self._clock.now(), server, vm_state, power_state, why)

    def images_in_use(self) -> frozenset[str]:
        """Images that servers of this host are made from."""
        with self._database.reading() as session:
            query = select(Server.image_id).where(Server.host == self._host, Server.deleted.is_(False)).distinct()
            return frozenset(session.scalars(query))
