"""Servers that go to another host: because somebody wants it, because theirs has no room, or because it is gone."""

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
    MigrationStep,
    PowerState,
    TaskState,
    VmState,
)
from network_api.resources import ports

LIVE_MIGRATION = "live-migration"
ABORTABLE_STATUSES = ("queued", "preparing", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationFilter:
    """What GET /os-migrations asks for."""

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
    """Move the server while its guest goes on. `forced`: nothing but room decides about the host."""
    if host is not None and host == server.host:
        raise errors.BadRequest(f"Unable to migrate instance ({server.id}) to current host ({host}).")
    servers.claim_action(session, now, caller, server, LIVE_MIGRATE, request_id, recorded_as="live-migration")
    _check_source_alive(session, now, server)
    confirm_abandoned_resize(session, now, server, request_id)
    paused = server.vm_state == VmState.PAUSED
    _start(session, now, caller, server, request_id, LIVE_MIGRATION, host, forced=forced, paused=paused)


def migrate(
    session: Session, now: datetime, caller: Caller, server: Server, request_id: str, *, host: str | None
) -> None:
    """Stop the server, move its disks to another host and start it there, until that is confirmed or reverted."""
    if host is not None and host == server.host:
        raise errors.BadRequest("Cannot migrate to the host where the server exists.")
    stopped = server.vm_state == VmState.STOPPED
    servers.claim_action(session, now, caller, server, MIGRATE, request_id)
    _check_source_alive(session, now, server)
    confirm_abandoned_resize(session, now, server, request_id)
    before = {"flavor": server.flavor, "flavor_id": server.flavor_id, "stopped": stopped}
    system_metadata.set_item(server, system_metadata.RESIZE, before)
    _start(session, now, caller, server, request_id, "migration", host, start=not stopped)


def confirm_abandoned_resize(session: Session, now: datetime, server: Server, request_id: str) -> None:
    """A resize that an operator has ended by saying how the server is counts as confirmed."""
    if server.aside.get(system_metadata.RESIZE):
        migration_workflow.confirm_resize(session, now, server, request_id)
        claims.end_resize(session, server)


def resize_to_other_host(session: Session, now: datetime, caller: Caller, server: Server, request_id: str) -> None:
    """The same with another flavor, which the server has been given already; its own host has no room for it."""
    _check_source_alive(session, now, server)
    server.task_state = TaskState.RESIZE_MIGRATING
    stopped = server.aside[system_metadata.RESIZE]["stopped"]
    _start(session, now, caller, server, request_id, "resize", None, start=not stopped)


def record_local_resize(session: Session, now: datetime, caller: Caller, server: Server, request_id: str) -> None:
    """Write down that the server is resized on its own host."""
    assert server.host is not None
    _record(session, now, caller, server, request_id, "resize", "migrating", server.host, server.host)


def evacuate(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    request_id: str,
    *,
    host: str | None,
    admin_pass: str | None,
    forced: bool,
    stays_off: bool,
    keep_disks: bool = False,
) -> str:
    """Make a server anew on another host, from its image and with its addresses, as its own is gone; or with the disks
    that it had, where hosts share them. Returns the new password. What its old host has of it that one removes when it
    comes back."""
    if host is not None and host == server.host:
        raise errors.BadRequest("The target host can't be the same one.")
    off = stays_off or server.vm_state == VmState.STOPPED
    servers.claim_action(session, now, caller, server, replace(REBUILD, name="evacuate"), request_id)
    left = server.host
    assert left is not None
    if hosts.may_be_alive(session, now, left):
        raise errors.BadRequest(f"Compute service of {left} is still in use.")
    found = _claim_host(session, now, server, host, forced=forced)
    with claims.release_difference(session, server):
        server.host, server.availability_zone = found.name, found.zone
    server.admin_pass = admin_pass or secrets.token_urlsafe(9)
    session.flush()
    ports.rebind(session, server.id, server.host)
    _record(session, now, caller, server, request_id, "evacuation", "accepted", left, found.name)
    keep = [disk.name for disk in disks(server)] if keep_disks else []
    stopped = {"start": False, "then": VmState.STOPPED, "power_state": PowerState.SHUTDOWN}
    operations.queue(session, now, server, REBUILD.task, request_id, {"keep": keep, **(stopped if off else {})})
    return server.admin_pass


def revert_to_source_host(
    session: Session, now: datetime, server: Server, request_id: str, arguments: dict[str, Any]
) -> None:
    """A resized server goes back to the host that it came from; the one that it is on forgets it first."""
    resize = server.aside[system_metadata.RESIZE]
    migration = migration_workflow.find_latest(session, server.id, "finished")
    if migration is None:
        raise errors.Conflict(f"Instance {server.id} has no migration to be reverted.")
    now_on, server.host = server.host, resize["host"]
    system_metadata.set_item(server, system_metadata.RESIZE, {**resize, "host": now_on})
    migration.status, migration.updated_at = "reverting", now
    session.flush()
    ports.rebind(session, server.id, server.host)
    more = {"migration": migration.id, "plan": None, "generation": server.generation, **arguments}
    operations.queue(session, now, server, MigrationStep.REVERT, request_id, more, host=now_on)


# --- what became of them --------------------------------------------------------------------------------------------


def list_migrations(session: Session, wanted: MigrationFilter) -> list[Migration]:
    """Migrations of all kinds. Raises BadRequest when the marker is none."""
    query = select(Migration)
    if wanted.host:
        query = query.where((Migration.source_compute == wanted.host) | (Migration.dest_compute == wanted.host))
    for column, value in (
        (Migration.server_id, wanted.server_id),
        (Migration.source_compute, wanted.source_compute),
        (Migration.status, wanted.status),
        (Migration.migration_type, wanted.migration_type),
        (Migration.user_id, wanted.user_id),
        (Migration.project_id, wanted.project_id),
    ):
        if value:
            query = query.where(column == value)
    if wanted.changed_since:
        query = query.where(Migration.updated_at >= wanted.changed_since)
    if wanted.changed_before:
        query = query.where(Migration.updated_at <= wanted.changed_before)
    if wanted.marker:
        after = session.scalar(select(Migration.id).where(Migration.uuid == wanted.marker))
        if after is None:
            raise errors.BadRequest(f"Marker {wanted.marker} not found")
        query = query.where(Migration.id < after if wanted.newest_first else Migration.id > after)
    query = query.order_by(Migration.id.desc() if wanted.newest_first else Migration.id)
    return list(session.scalars(query.limit(wanted.limit) if wanted.limit else query))


def list_live(session: Session, server: Server) -> list[Migration]:
    """The server's live migrations that are under way: one at most."""
    query = select(Migration).where(
        Migration.server_id == server.id,
        Migration.migration_type == LIVE_MIGRATION,
        Migration.status.in_(ACTIVE_STATUSES),
    )
    return list(session.scalars(query))


def find_live(session: Session, server: Server, migration_id: str) -> Migration:
    """A live migration of the server that is under way. Raises NotFound."""
    try:
        number = parse_integer(migration_id)
    except ValueError:
        number = -1
    known = session.scalar(select(Migration).where(Migration.id == number, Migration.server_id == server.id))
    if known is None:
        raise errors.NotFound(f"Migration {migration_id} for server {server.id} could not be found.")
    if known.migration_type != LIVE_MIGRATION:
        raise errors.NotFound(f"Migration {known.id} for server {server.id} is not live-migration.")
    if known.status not in ACTIVE_STATUSES:
        raise errors.NotFound(f"Migration {known.id} for server {server.id} is not in progress.")
    return known


def check_running(server: Server, migration: Migration) -> None:
    """Raises BadRequest when the guest is not being sent."""
    if migration.status != "running":
        raise errors.BadRequest(
            f"Migration {migration.id} state of instance {server.id} is {migration.status}. Cannot force_complete "
            "while the migration is in this state."
        )


def request_abort(now: datetime, server: Server, migration: Migration, *, also_before: bool) -> bool:
    """Nothing is to come of the migration; True when a host has to be told. Raises BadRequest when it is too late."""
    if migration.status not in (ABORTABLE_STATUSES if also_before else ("running",)):
        raise errors.BadRequest(
            f"Migration {migration.id} state of instance {server.id} is {migration.status}. Cannot abort "
            "while the migration is in this state."
        )
    migration.exchange = {**migration.exchange, "cancelled": True}
    migration.updated_at = now
    return migration.status == "running"


# --- inside ---------------------------------------------------------------------------------------------------------


def _start(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    request_id: str,
    kind: str,
    host: str | None,
    *,
    forced: bool = False,
    paused: bool = False,
    start: bool = True,
) -> None:
    found = _claim_host(session, now, server, host, forced=forced)
    assert server.host is not None
    status = "queued" if kind == LIVE_MIGRATION else "pre-migrating"
    migration = _record(session, now, caller, server, request_id, kind, status, server.host, found.name)
    migration.exchange = {
        "plan": {
            "id": migration.uuid,
            "key": secrets.token_hex(32),
            "live": kind == LIVE_MIGRATION,
            "paused": paused,
            "start": start,
        }
    }
    system_metadata.set_item(server, system_metadata.MIGRATION, {"id": migration.id, "to": found.name})
    migration_workflow.queue(session, now, server, migration, MigrationStep.BEGIN)


def _claim_host(session: Session, now: datetime, server: Server, host: str | None, *, forced: bool) -> Host:
    """Room on another host. Raises BadRequest in Nova's words."""
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
    found = hosts.claim(session, now, **need, zone=server.pinned_zone, host=None, constraints=among)
    if found is None:
        raise errors.BadRequest(hosts.explain_no_host(session, now, **need, zone=server.pinned_zone, constraints=among))
    return found


def _check_source_alive(session: Session, now: datetime, server: Server) -> None:
    if server.host is not None and not hosts.is_alive(session, now, server.host):
        raise errors.BadRequest(f"Compute service of {server.host} is unavailable at this time.")


def _record(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    request_id: str,
    kind: str,
    status: str,
    source: str,
    destination: str,
) -> Migration:
    before = server.aside.get(system_metadata.RESIZE, {}).get("flavor_id", server.flavor_id)
    numbers = dict[str, int](
        session.execute(select(Flavor.id, Flavor.seq).where(Flavor.id.in_((before, server.flavor_id)))).all()
    )
    migration = Migration(
        uuid=str(uuid4()),
        server_id=server.id,
        project_id=server.project_id,
        user_id=caller.user_id,
        request_id=request_id,
        migration_type=kind,
        status=status,
        source_compute=source,
        dest_compute=destination,
        old_flavor=numbers.get(before),
        new_flavor=numbers.get(server.flavor_id),
        exchange={},
        created_at=now,
        updated_at=now,
    )
    session.add(migration)
    session.flush()
    return migration
