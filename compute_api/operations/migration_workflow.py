"""Migration workflow: queues the next phase when a host reports the end of one.

    BEGIN ─▶ PREPARE ─▶ PERFORM ─▶ FINISH ─▶ the server is on the destination
    source   dest.      source     dest.
      │        │          └─ done or failed ─▶ FINISH reports whether the guest is there; if not:
      └────────┴─ failed ──────────────────▶ CANCEL on the source ─▶ the server is unchanged

Each phase is an operation: idempotent, and discarded unless the server is still migrating in the same generation. Data
that phases pass on (a key, a config drive) is deleted at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from compute_api import system_metadata
from compute_api.faults import mark_failed
from compute_api.flavors import history
from compute_api.models import Host, Migration, Operation, Server
from compute_api.operations import operations
from compute_api.scheduler import claims
from compute_api.states import (
    MIGRATE,
    OPEN_OPERATION_STATES,
    MigrationStatus,
    MigrationStep,
    OperationState,
    PowerState,
    SideTask,
    TaskState,
    VmState,
)
from network_api.resources import ports

HOUR = 3600
DEADLINE_SECONDS = {
    MigrationStep.BEGIN: 300,
    MigrationStep.PREPARE: HOUR,  # includes downloading the image
    MigrationStep.PERFORM: 8 * HOUR,
    MigrationStep.FINISH: 600,
    MigrationStep.CANCEL: 300,
    MigrationStep.REVERT: 300,
}
ACTIVE_STATUSES = (
    MigrationStatus.QUEUED,
    MigrationStatus.PREPARING,
    MigrationStatus.RUNNING,
    MigrationStatus.PRE_MIGRATING,
    MigrationStatus.MIGRATING,
    MigrationStatus.POST_MIGRATING,
)
ABORTED = "Live migration was aborted."


@dataclass(frozen=True, slots=True)
class StepResult:
    """The outcome of one phase of a migration."""

    session: Session
    now: datetime
    server: Server
    migration: Migration
    operation: Operation
    error: str | None
    result: dict[str, Any]


def queue(
    session: Session, now: datetime, server: Server, migration: Migration, step: MigrationStep, **more: Any
) -> None:
    """Queue a phase on the source or the destination."""
    on_source = step in (MigrationStep.BEGIN, MigrationStep.PERFORM, MigrationStep.CANCEL)
    host = migration.source_compute if on_source else migration.dest_compute
    arguments = {"migration": migration.id, "plan": migration.exchange["plan"], **more}
    operations.queue(session, now, server, step, migration.request_id, arguments, host=host)
    migration.updated_at = now


def finish(
    session: Session, now: datetime, operation: Operation, error: str | None, result: dict[str, Any] | None
) -> bool:
    """Record the outcome of a phase and queue the next one; returns False when a later action has superseded the
    migration."""
    server = session.scalar(
        select(Server)
        .where(
            Server.id == operation.server_id,
            Server.generation == operation.generation,
            Server.task_state.in_((TaskState.MIGRATING, TaskState.RESIZE_MIGRATING, TaskState.RESIZE_REVERTING)),
            Server.deleted.is_(False),
        )
        .with_for_update()
    )
    migration = session.get(Migration, operation.arguments["migration"], with_for_update=True)
    if server is None or migration is None:
        return False
    operations.close(session, now, operation.id, OperationState.FAILED if error else OperationState.DONE, error)
    step = MigrationStep(operation.task)
    _NEXT[step](StepResult(session, now, server, migration, operation, error, result or {}))
    return True


def mark_superseded(session: Session, now: datetime, operation: Operation) -> None:
    """Close a superseded migration. Reconciliation on the destination removes what is left there."""
    migration = session.get(Migration, operation.arguments.get("migration", 0))
    _clear_arguments(session, Operation.id == operation.id)
    server = session.scalar(select(Server).where(Server.id == operation.server_id, Server.deleted.is_(False)))
    if migration is None or server is None or migration.status not in ACTIVE_STATUSES:
        return
    if server.generation != operation.generation:
        _abandon(session, now, server, migration)


def close_all(session: Session, now: datetime, server: Server) -> None:
    """Close all migrations of a deleted server."""
    query = select(Migration).where(Migration.server_id == server.id)
    for migration in session.scalars(
        query.where(Migration.status.in_((*ACTIVE_STATUSES, MigrationStatus.FINISHED, MigrationStatus.REVERTING)))
    ):
        _abandon(session, now, server, migration)


def _abandon(session: Session, now: datetime, server: Server, migration: Migration) -> None:
    _close(
        session,
        now,
        migration,
        MigrationStatus.ERROR if migration.status in ACTIVE_STATUSES else MigrationStatus.CONFIRMED,
    )
    claim = system_metadata.MIGRATION.find(server)
    if claim is not None and claim["id"] == migration.id:
        with claims.release_difference(session, server):
            system_metadata.MIGRATION.pop(server)


def list_migrating_servers(session: Session, host: str) -> list[Server]:
    """Return servers of other hosts of which this host has a part because of a migration and which it must not
    remove."""
    query = (
        select(Server)
        .join(Migration, Migration.server_id == Server.id)
        .where(
            Server.deleted.is_(False),
            or_(Server.host.is_(None), Server.host != host),
            or_(
                Migration.status.in_(ACTIVE_STATUSES)
                & or_(Migration.source_compute == host, Migration.dest_compute == host),
                (Migration.status == MigrationStatus.FINISHED) & (Migration.source_compute == host),
                (Migration.status == MigrationStatus.REVERTING) & (Migration.dest_compute == host),
            ),
        )
    )
    return list(session.scalars(query))


# --- migration records of resizes and evacuations -------------------------------------------------------------------


def find_latest(session: Session, server_id: str, *statuses: MigrationStatus) -> Migration | None:
    """Return the server's latest migration with one of these statuses."""
    query = select(Migration).where(Migration.server_id == server_id, Migration.status.in_(statuses))
    return session.scalar(query.order_by(Migration.id.desc()).limit(1))


def finish_resize(session: Session, now: datetime, server: Server, *, done: bool) -> None:
    """Record the end of a resize on the server's own host."""
    if migration := find_latest(session, server.id, MigrationStatus.MIGRATING):
        _close(session, now, migration, MigrationStatus.FINISHED if done else MigrationStatus.ERROR)


def confirm_resize(session: Session, now: datetime, server: Server, request_id: str) -> None:
    """Record a confirmed resize and clean up the source host."""
    if migration := find_latest(session, server.id, MigrationStatus.FINISHED):
        _close(session, now, migration, MigrationStatus.CONFIRMED)
    resize = system_metadata.RESIZE.find(server) or system_metadata.Resize()
    if resize.get("host"):
        queue_cleanup(session, now, server, resize["host"], request_id)


def finish_revert(session: Session, now: datetime, server: Server) -> None:
    """Record the end of a revert."""
    if migration := find_latest(session, server.id, MigrationStatus.FINISHED, MigrationStatus.REVERTING):
        _close(session, now, migration, MigrationStatus.REVERTED)


def finish_evacuation(session: Session, now: datetime, server: Server, *, done: bool) -> None:
    """Record the end of an evacuation, if one is in progress."""
    if migration := find_latest(session, server.id, MigrationStatus.ACCEPTED):
        _close(session, now, migration, MigrationStatus.DONE if done else MigrationStatus.FAILED)


def queue_cleanup(session: Session, now: datetime, server: Server, host: str, request_id: str) -> None:
    """Queue the removal of the server's machine on a host that it has left."""
    operations.queue(session, now, server, SideTask.CLEAN, request_id, {"generation": server.generation}, host=host)


# --- one function per phase -----------------------------------------------------------------------------------------


def _after_begin(done: StepResult) -> None:
    if done.error or _is_cancelled(done):
        _fail(done, done.error or ABORTED)
        return
    exchange = done.migration.exchange
    done.migration.exchange = {**exchange, "plan": {**exchange["plan"], "offer": done.result["offer"]}}
    done.migration.status = MigrationStatus.PREPARING if done.migration.is_live else MigrationStatus.PRE_MIGRATING
    queue(done.session, done.now, done.server, done.migration, MigrationStep.PREPARE)


def _after_prepare(done: StepResult) -> None:
    if done.error or _is_cancelled(done):
        _fail(done, done.error or ABORTED)
        return
    exchange, landing = done.migration.exchange, done.result["landing"]
    done.migration.exchange = {**exchange, "plan": {**exchange["plan"], "offer": None}}
    done.migration.dest_host = landing["address"]
    done.migration.status = MigrationStatus.RUNNING if done.migration.is_live else MigrationStatus.MIGRATING
    queue(done.session, done.now, done.server, done.migration, MigrationStep.PERFORM, landing=landing)


def _after_perform(done: StepResult) -> None:
    """Queue FINISH even after an error: only the destination knows whether the guest arrived."""
    done.migration.exchange = {**done.migration.exchange, "why": done.error}
    done.migration.status = MigrationStatus.POST_MIGRATING
    sent = done.result.get("sent")
    queue(done.session, done.now, done.server, done.migration, MigrationStep.FINISH, sent=sent)


def _after_finish(done: StepResult) -> None:
    """Complete or cancel the migration.

    When the destination went down before it reported, the guest is there if it was sent, unless the destination had yet
    to start it.
    """
    sent = done.operation.arguments["sent"]
    if done.error:
        begun = done.migration.is_live or done.operation.attempts > 0
        is_there = sent is not None and begun
    else:
        is_there = done.result["taken"]
    if is_there:
        _complete(done)
        return
    exchange = done.migration.exchange
    why = exchange.get("why") or done.result.get("why") or done.error or "The guest did not arrive."
    done.migration.exchange = {**exchange, "why": why}
    if not done.migration.is_live:
        _restore_flavor(done)
    queue(done.session, done.now, done.server, done.migration, MigrationStep.CANCEL)


def _after_cancel(done: StepResult) -> None:
    _fail(done, done.migration.exchange.get("why") or "The migration was given up.")


def _after_revert(done: StepResult) -> None:
    """Start the server on the source host again after the destination has removed it."""
    if done.error:
        done.server.task_state = None
        mark_failed(done.server, done.now, done.error)
        operations.end_action(done.session, done.now, done.server.id, done.operation.request_id, done.error)
        return
    ours = ("plan", "migration", "generation")
    arguments = {name: value for name, value in done.operation.arguments.items() if name not in ours}
    operations.queue(
        done.session, done.now, done.server, TaskState.RESIZE_REVERTING, done.operation.request_id, arguments
    )


_NEXT: dict[MigrationStep, Callable[[StepResult], None]] = {
    MigrationStep.BEGIN: _after_begin,
    MigrationStep.PREPARE: _after_prepare,
    MigrationStep.PERFORM: _after_perform,
    MigrationStep.FINISH: _after_finish,
    MigrationStep.CANCEL: _after_cancel,
    MigrationStep.REVERT: _after_revert,
}


def _complete(done: StepResult) -> None:
    """Move the server and its ports to the destination."""
    session, now, server, migration = done.session, done.now, done.server, done.migration
    left = migration.source_compute
    stopped = not migration.exchange["plan"]["start"]
    with claims.release_difference(session, server):
        system_metadata.MIGRATION.pop(server)
        server.host = migration.dest_compute
        if not migration.is_live:
            system_metadata.RESIZE.set(server, {**system_metadata.RESIZE.get(server), "host": left})
    server.availability_zone = session.scalar(select(Host.zone).where(Host.name == server.host)) or ""
    if migration.is_live:
        queue_cleanup(session, now, server, left, migration.request_id)
    else:
        server.vm_state = MIGRATE.then or VmState.RESIZED
        server.power_state = PowerState.SHUTDOWN if stopped else PowerState.RUNNING
    server.fault = {}
    _end(done, MigrationStatus.COMPLETED if migration.is_live else MigrationStatus.FINISHED, None)


def _fail(done: StepResult, why: str) -> None:
    """Leave the server on the source, unchanged."""
    session, server, migration = done.session, done.server, done.migration
    if not migration.is_live:
        _restore_flavor(done)
    with claims.release_difference(session, server):
        system_metadata.MIGRATION.pop(server)
        system_metadata.RESIZE.pop(server)
    if migration.exchange["plan"].get("offer") or migration.dest_host:
        queue_cleanup(session, done.now, server, migration.dest_compute, migration.request_id)
    _end(done, MigrationStatus.CANCELLED if _is_cancelled(done) else MigrationStatus.ERROR, why)


def _restore_flavor(done: StepResult) -> None:
    """Restore the old flavor. Claims are released at the end of the migration."""
    server, resize = done.server, system_metadata.RESIZE.get(done.server)
    if resize.get("given_back"):
        return
    given_up: system_metadata.Resize = {
        **resize,
        "flavor": server.flavor,
        "flavor_id": server.flavor_id,
        "given_back": True,
    }
    server.flavor, server.flavor_id = resize["flavor"], resize["flavor_id"]
    history.remove_reverted_flavor(done.session, server)
    system_metadata.RESIZE.set(server, given_up)


def _end(done: StepResult, status: MigrationStatus, why: str | None) -> None:
    session, server = done.session, done.server
    server.task_state = None
    server.updated_at = done.now
    session.flush()
    ports.rebind(session, server.id, server.host)
    ports.set_status(session, server.id, server.power_state == PowerState.RUNNING)
    operations.end_action(session, done.now, server.id, done.migration.request_id, why)
    _close(session, done.now, done.migration, status)


def _is_cancelled(done: StepResult) -> bool:
    return bool(done.migration.exchange.get("cancelled"))


def _close(session: Session, now: datetime, migration: Migration, status: MigrationStatus) -> None:
    """Close the migration record and delete its secrets."""
    migration.status, migration.updated_at, migration.exchange = status, now, {}
    _clear_arguments(
        session,
        Operation.server_id == migration.server_id,
        Operation.request_id == migration.request_id,
        Operation.task.in_(list(MigrationStep)),
        Operation.state.not_in(OPEN_OPERATION_STATES),
    )


def _clear_arguments(session: Session, *which: ColumnElement[bool]) -> None:
    statement = update(Operation).where(*which).values(arguments={})
    session.execute(statement.execution_options(synchronize_session=False))
