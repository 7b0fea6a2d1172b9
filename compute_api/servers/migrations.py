"""Server migrations: live migration, cold migration, resize to another host and evacuation; lists and abort."""

import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from app.core.numbers import parse_integer
from compute_api import system_metadata
from compute_api.hosts import hosts, liveness
from compute_api.hosts.constraints import HostConstraints
from compute_api.models import Flavor, Host, Migration, Server
from compute_api.operations import migration_workflow, operations
from compute_api.operations.machine_spec import disks
from compute_api.operations.migration_workflow import ACTIVE_STATUSES
from compute_api.scheduler import claims, scheduling
from compute_api.servers import servers
from compute_api.states import (
    LIVE_MIGRATE,
    MIGRATE,
    REBUILD,
    MigrationStatus,
    MigrationStep,
    PowerState,
    TaskState,
    VmState,
)
from network_api.resources import ports

LIVE_MIGRATION = "live-migration"
ABORTABLE_STATUSES = (MigrationStatus.QUEUED, MigrationStatus.PREPARING, MigrationStatus.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationFilter:
    """Filters, order and page of GET /os-migrations."""

    host: str | None = None
    server_id: str | None = None
    source_compute: str | None = None
    status: str | None = None
    migration_type: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    changed_since: datetime | None = None
    changed_before: datetime | None = None
    newest_first: bool = False
    limit: int | None = None
    marker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evacuation:
    """Fields of an evacuate request. `host` None lets the scheduler choose.

    `forced` checks nothing but free resources of `host`; `stays_off` leaves the server stopped; `keep_disks` reuses its
    disks, which hosts share.
    """

    host: str | None = None
    admin_pass: str | None = None
    forced: bool = False
    stays_off: bool = False
    keep_disks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """A migration to be started: Nova's migration type, the requested host, and the state of the machine there."""

    type: str
    host: str | None = None
    forced: bool = False
    paused: bool = False
    start: bool = True


@dataclass(frozen=True, slots=True)
class _NewMigration:
    """Type, initial status, source and target host of a migration to be recorded."""

    type: str
    status: MigrationStatus
    source: str
    target: str


def live_migrate(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    request_id: str,
    *,
    host: str | None,
    forced: bool = False,
) -> None:
    """Move the server to another host while its guest runs. `forced` checks nothing but free resources of `host`."""
    if host is not None and host == server.host:
        raise errors.BadRequest(f"Unable to migrate instance ({server.id}) to current host ({host}).")
    servers.claim_action(session, now, caller, server, LIVE_MIGRATE, request_id, recorded_as="live-migration")
    _check_source_alive(session, now, server)
    confirm_abandoned_resize(session, now, server, request_id)
    move = _Move(type=LIVE_MIGRATION, host=host, forced=forced, paused=server.vm_state == VmState.PAUSED)
    _start(session, now, caller, server, request_id, move)


def migrate(
    session: Session, now: datetime, caller: Caller, server: Server, request_id: str, *, host: str | None
) -> None:
    """Stop the server, move its disks to another host and start it there, to be confirmed or reverted."""
    if host is not None and host == server.host:
        raise errors.BadRequest("Cannot migrate to the host where the server exists.")
    stopped = server.vm_state == VmState.STOPPED
    servers.claim_action(session, now, caller, server, MIGRATE, request_id)
    _check_source_alive(session, now, server)
    confirm_abandoned_resize(session, now, server, request_id)
    system_metadata.RESIZE.set(server, {"flavor": server.flavor, "flavor_id": server.flavor_id, "stopped": stopped})
    _start(session, now, caller, server, request_id, _Move(type="migration", host=host, start=not stopped))


def confirm_abandoned_resize(session: Session, now: datetime, server: Server, request_id: str) -> None:
    """Confirm a resize that an operator ended by resetting the server's state."""
    if system_metadata.RESIZE.find(server):
        migration_workflow.confirm_resize(session, now, server, request_id)
        claims.end_resize(session, server)


def resize_to_other_host(session: Session, now: datetime, caller: Caller, server: Server, request_id: str) -> None:
    """Migrate a server, whose flavor is changed already, because its own host has no room for the new flavor."""
    _check_source_alive(session, now, server)
    server.task_state = TaskState.RESIZE_MIGRATING
    stopped = system_metadata.RESIZE.get(server)["stopped"]
    _start(session, now, caller, server, request_id, _Move(type="resize", start=not stopped))


def record_local_resize(session: Session, now: datetime, caller: Caller, server: Server, request_id: str) -> None:
    """Record a migration for a resize on the server's own host."""
    assert server.host is not None
    _record(
        session,
        now,
        server,
        caller.user_id,
        request_id,
        _NewMigration("resize", MigrationStatus.MIGRATING, server.host, server.host),
    )


def evacuate(
    session: Session, now: datetime, caller: Caller, server: Server, evacuation: Evacuation, request_id: str
) -> str:
    """Recreate the server of a failed host on another one, from its image and with its addresses. Returns the password.

    The failed host removes its machine when it comes back. Raises BadRequest when the host may still be up.
    """
    if evacuation.host is not None and evacuation.host == server.host:
        raise errors.BadRequest("The target host can't be the same one.")
    off = evacuation.stays_off or server.vm_state == VmState.STOPPED
    servers.claim_action(session, now, caller, server, replace(REBUILD, name="evacuate"), request_id)
    source = server.host
    assert source is not None
    if hosts.may_be_alive(session, now, source):
        raise errors.BadRequest(f"Compute service of {source} is still in use.")
    target = _claim_host(session, now, server, evacuation.host, forced=evacuation.forced)
    with claims.release_difference(session, server):
        server.host, server.availability_zone = target.name, target.zone
    server.admin_pass = evacuation.admin_pass or secrets.token_urlsafe(9)
    session.flush()
    ports.rebind(session, server.id, server.host)
    _record(
        session,
        now,
        server,
        caller.user_id,
        request_id,
        _NewMigration("evacuation", MigrationStatus.ACCEPTED, source, target.name),
    )
    keep = [disk.name for disk in disks(server)] if evacuation.keep_disks else []
    stopped = {"start": False, "then": VmState.STOPPED, "power_state": PowerState.SHUTDOWN}
    operations.queue(session, now, server, REBUILD.task, request_id, {"keep": keep, **(stopped if off else {})})
    return server.admin_pass


def revert_to_source_host(
    session: Session, now: datetime, server: Server, request_id: str, arguments: dict[str, Any]
) -> None:
    """Move a resized server back to its source host after its current host has removed the machine."""
    resize = system_metadata.RESIZE.get(server)
    migration = migration_workflow.find_latest(session, server.id, MigrationStatus.FINISHED)
    if migration is None:
        raise errors.Conflict(f"Instance {server.id} has no migration to be reverted.")
    assert server.host is not None
    current, server.host = server.host, resize["host"]
    system_metadata.RESIZE.set(server, {**resize, "host": current})
    migration.status, migration.updated_at = MigrationStatus.REVERTING, now
    session.flush()
    ports.rebind(session, server.id, server.host)
    more = {"migration": migration.id, "plan": None, "generation": server.generation, **arguments}
    operations.queue(session, now, server, MigrationStep.REVERT, request_id, more, host=current)


# --- lists and abort ------------------------------------------------------------------------------------------------


def list_migrations(session: Session, filters: MigrationFilter) -> list[Migration]:
    """List migrations of all kinds. Raises BadRequest for an unknown marker."""
    query = select(Migration)
    if filters.host:
        query = query.where((Migration.source_compute == filters.host) | (Migration.dest_compute == filters.host))
    for column, value in (
        (Migration.server_id, filters.server_id),
        (Migration.source_compute, filters.source_compute),
        (Migration.status, filters.status),
        (Migration.migration_type, filters.migration_type),
        (Migration.user_id, filters.user_id),
        (Migration.project_id, filters.project_id),
    ):
        if value:
            query = query.where(column == value)
    if filters.changed_since:
        query = query.where(Migration.updated_at >= filters.changed_since)
    if filters.changed_before:
        query = query.where(Migration.updated_at <= filters.changed_before)
    if filters.marker:
        after = session.scalar(select(Migration.id).where(Migration.uuid == filters.marker))
        if after is None:
            raise errors.BadRequest(f"Marker {filters.marker} not found")
        query = query.where(Migration.id < after if filters.newest_first else Migration.id > after)
    query = query.order_by(Migration.id.desc() if filters.newest_first else Migration.id)
    return list(session.scalars(query.limit(filters.limit) if filters.limit else query))


def list_live(session: Session, server: Server) -> list[Migration]:
    """List the server's live migrations in progress: one at most."""
    query = select(Migration).where(
        Migration.server_id == server.id,
        Migration.migration_type == LIVE_MIGRATION,
        Migration.status.in_(ACTIVE_STATUSES),
    )
    return list(session.scalars(query))


def find_live(session: Session, server: Server, migration_id: str) -> Migration:
    """Return a live migration of the server that is in progress. Raises NotFound."""
    try:
        number = parse_integer(migration_id)
    except ValueError:
        number = -1
    migration = session.scalar(select(Migration).where(Migration.id == number, Migration.server_id == server.id))
    if migration is None:
        raise errors.NotFound(f"Migration {migration_id} for server {server.id} could not be found.")
    if migration.migration_type != LIVE_MIGRATION:
        raise errors.NotFound(f"Migration {migration.id} for server {server.id} is not live-migration.")
    if migration.status not in ACTIVE_STATUSES:
        raise errors.NotFound(f"Migration {migration.id} for server {server.id} is not in progress.")
    return migration


def check_running(server: Server, migration: Migration) -> None:
    """Raise BadRequest unless the migration is running."""
    if migration.status != MigrationStatus.RUNNING:
        raise errors.BadRequest(
            f"Migration {migration.id} state of instance {server.id} is {migration.status}. Cannot force_complete "
            "while the migration is in this state."
        )


def request_abort(now: datetime, server: Server, migration: Migration, *, also_before: bool) -> bool:
    """Mark the migration as cancelled and return whether its source host must be notified.

    `also_before` allows it before the migration runs. Raises BadRequest when the status does not allow it.
    """
    if migration.status not in (ABORTABLE_STATUSES if also_before else (MigrationStatus.RUNNING,)):
        raise errors.BadRequest(
            f"Migration {migration.id} state of instance {server.id} is {migration.status}. Cannot abort "
            "while the migration is in this state."
        )
    migration.exchange = {**migration.exchange, "cancelled": True}
    migration.updated_at = now
    return migration.status == MigrationStatus.RUNNING


# --- helpers --------------------------------------------------------------------------------------------------------


def _start(session: Session, now: datetime, caller: Caller, server: Server, request_id: str, move: _Move) -> None:
    """Claim the target host, record the migration and queue its first phase."""
    target = _claim_host(session, now, server, move.host, forced=move.forced)
    assert server.host is not None
    is_live = move.type == LIVE_MIGRATION
    new = _NewMigration(
        move.type, MigrationStatus.QUEUED if is_live else MigrationStatus.PRE_MIGRATING, server.host, target.name
    )
    migration = _record(session, now, server, caller.user_id, request_id, new)
    migration.exchange = {
        "plan": {
            "id": migration.uuid,
            "key": secrets.token_hex(32),
            "live": is_live,
            "paused": move.paused,
            "start": move.start,
        }
    }
    system_metadata.MIGRATION.set(server, {"id": migration.id, "to": target.name})
    migration_workflow.queue(session, now, server, migration, MigrationStep.BEGIN)


def _claim_host(session: Session, now: datetime, server: Server, host: str | None, *, forced: bool) -> Host:
    """Claim resources on another host. Raises BadRequest with Nova's message."""
    among = HostConstraints(
        forbidden=(server.host or "",), host_reasons=((server.host or "", "the server is there already"),)
    )
    if host is not None:
        known = session.scalar(select(Host).where(Host.name == host))
        if known is None:
            raise errors.BadRequest(f"Compute host {host} could not be found.")
        if not hosts.is_up(known, liveness.down_before(session, now)):
            raise errors.BadRequest(f"Compute service of {host} is unavailable at this time.")
        among &= HostConstraints(required=(host,), reason=f"host {host} was asked for")
    if not forced:
        among &= scheduling.constraints(session, server)
    need = claims.flavor_resources(server.flavor)
    claimed = hosts.claim(session, now, **need, zone=server.pinned_zone, host=None, constraints=among)
    if claimed is None:
        raise errors.BadRequest(hosts.explain_no_host(session, now, **need, zone=server.pinned_zone, constraints=among))
    return claimed


def _check_source_alive(session: Session, now: datetime, server: Server) -> None:
    if server.host is not None and not hosts.is_alive(session, now, server.host):
        raise errors.BadRequest(f"Compute service of {server.host} is unavailable at this time.")


def _record(
    session: Session, now: datetime, server: Server, user_id: str, request_id: str, new: _NewMigration
) -> Migration:
    """Insert the migration's row."""
    before = (system_metadata.RESIZE.find(server) or {}).get("flavor_id", server.flavor_id)
    numbers = dict[str, int](
        session.execute(select(Flavor.id, Flavor.seq).where(Flavor.id.in_((before, server.flavor_id)))).all()
    )
    migration = Migration(
        uuid=str(uuid4()),
        server_id=server.id,
        project_id=server.project_id,
        user_id=user_id,
        request_id=request_id,
        migration_type=new.type,
        status=new.status,
        source_compute=new.source,
        dest_compute=new.target,
        old_flavor=numbers.get(before),
        new_flavor=numbers.get(server.flavor_id),
        exchange={},
        created_at=now,
        updated_at=now,
    )
    session.add(migration)
    session.flush()
    return migration
