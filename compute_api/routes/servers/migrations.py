"""Routes of migrations: the actions migrate, os-migrateLive and evacuate, lists of migrations and their progress."""

from http import HTTPStatus
from typing import Any

from flask import Response, request

from app.core import errors
from app.web.bodies import MALFORMED, json_body, parse
from app.web.context import caller, clock, database, settings
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import require
from app.web.responses import empty, json
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import check_available, host_client, request_id, transaction, version
from compute_api.schemas.server_actions import Evacuate, Migrate, MigrateLive
from compute_api.servers import migrations, servers
from compute_api.servers.migrations import Evacuation
from compute_api.states import MigrationStatus
from compute_api.views import migrations as views

AUTO_SINCE, FORCE_SINCE = v("2.25"), v("2.30")
LISTED_SINCE, FORCE_COMPLETE_SINCE, ABORT_SINCE, ABORT_QUEUED_SINCE = v("2.23"), v("2.22"), v("2.24"), v("2.65")
PAGES_SINCE, BEFORE_SINCE, OWNER_SINCE = v("2.59"), v("2.66"), v("2.80")
NO_PASSWORD_SINCE, STAYS_OFF_SINCE = v("2.14"), v("2.95")


def migrate(server_id: str, body: Any) -> Response:
    fields = parse(Migrate, body or {}, version())
    _check_disks()
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        migrations.migrate(session, clock().now(), caller(), server, request_id(), host=fields.host)
    return empty(HTTPStatus.ACCEPTED)


def migrate_live(server_id: str, body: Any) -> Response:
    fields = parse(MigrateLive, body, version())
    _check_disks()
    if fields.block_migration == "auto" and version() < AUTO_SINCE:
        raise errors.BadRequest("Invalid input for field/attribute block_migration. Value: auto. It is not a boolean.")
    if fields.force and fields.host is None:
        raise errors.BadRequest("Can't force to a non-provided destination")
    if fields.block_migration is False:
        raise errors.BadRequest(
            f"{server_id} is not on shared storage: Shared storage live-migration requires either shared storage or "
            "boot-from-volume with no local disks."
        )
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        # Below 2.30 a named host bypasses the scheduler.
        forced = fields.force or (fields.host is not None and version() < FORCE_SINCE)
        now = clock().now()
        migrations.live_migrate(session, now, caller(), server, request_id(), host=fields.host, forced=forced)
    return empty(HTTPStatus.ACCEPTED)


def evacuate(server_id: str, body: Any) -> Response:
    fields = parse(Evacuate, body or {}, version())
    if fields.force and fields.host is None:
        raise errors.BadRequest("Can't force to a non-provided destination")
    if fields.on_shared_storage is None and version() < NO_PASSWORD_SINCE:
        raise errors.BadRequest("Invalid input for field/attribute evacuate. 'onSharedStorage' is a required property")
    shared = bool(settings().shared_machines)
    if fields.on_shared_storage not in (None, shared):
        raise errors.BadRequest(
            "Invalid state of instance files on shared storage: hosts of this cloud "
            f"{'share' if shared else 'do not share'} their disks."
        )
    if fields.on_shared_storage and fields.admin_pass:
        raise errors.BadRequest("admin password can't be changed on existing disk")
    evacuation = Evacuation(
        host=fields.host,
        admin_pass=fields.admin_pass,
        forced=fields.force,
        stays_off=version() >= STAYS_OFF_SINCE,
        keep_disks=shared,
    )
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        password = migrations.evacuate(session, clock().now(), caller(), server, evacuation, request_id())
    return json({"adminPass": password}) if version() < NO_PASSWORD_SINCE else empty(HTTPStatus.OK)


@compute.get("/os-migrations")
@require("os_compute_api:os-migrations:index")
def list_migrations() -> Response:
    known = ["hidden", "host", "instance_uuid", "source_compute", "status", "migration_type"]
    if version() >= PAGES_SINCE:
        known += ["limit", "marker", "changes-since"]
        known += ["changes-before"] if version() >= BEFORE_SINCE else []
        known += ["user_id", "project_id"] if version() >= OWNER_SINCE else []
        if unknown := sorted(set(request.args) - set(known)):
            raise errors.BadRequest(f"Invalid input for query parameters. Unknown parameters: {unknown}")
    given = {name: request.args[name] for name in known if request.args.get(name)}
    has_pages = version() >= PAGES_SINCE
    paging = page(request.args)
    filters = migrations.MigrationFilter(
        host=given.get("host"),
        server_id=given.get("instance_uuid"),
        source_compute=given.get("source_compute"),
        status=given.get("status"),
        migration_type=given.get("migration_type"),
        user_id=given.get("user_id"),
        project_id=given.get("project_id"),
        changed_since=list_params.parse_time("changes-since") if has_pages else None,
        changed_before=list_params.parse_time("changes-before") if version() >= BEFORE_SINCE else None,
        newest_first=has_pages,
        limit=paging.limit + 1 if has_pages else None,
        marker=paging.marker if has_pages else None,
    )
    if filters.changed_since and filters.changed_before and filters.changed_since > filters.changed_before:
        raise errors.BadRequest("The value of changes-since must be less than or equal to changes-before.")
    with database().reading() as session:
        found = migrations.list_migrations(session, filters)
    shown = found[: paging.limit] if has_pages else found
    body: dict[str, Any] = {"migrations": [views.entry(one, version()) for one in shown]}
    if has_pages and len(found) > paging.limit > 0:
        href = url(f"/compute/v2.1/os-migrations?{query_after(shown[-1].uuid)}")
        body["migrations_links"] = [{"rel": "next", "href": href}]
    return json(body)


@compute.get("/servers/<server_id>/migrations")
@require("os_compute_api:servers:migrations:index")
def list_server_migrations(server_id: str) -> Response:
    check_available(since=LISTED_SINCE)
    with database().reading() as session:
        found = migrations.list_live(session, servers.find(session, caller(), server_id))
    return json(
        {
            "migrations": [
                views.live_migration(one, _read_progress(server_id, one.source_compute, one.status), version())
                for one in found
            ]
        }
    )


@compute.get("/servers/<server_id>/migrations/<migration_id>")
@require("os_compute_api:servers:migrations:show")
def show_server_migration(server_id: str, migration_id: str) -> Response:
    check_available(since=LISTED_SINCE)
    with database().reading() as session:
        found = migrations.find_live(session, servers.find(session, caller(), server_id), migration_id)
    progress = _read_progress(server_id, found.source_compute, found.status)
    return json({"migration": views.live_migration(found, progress, version())})


@compute.post("/servers/<server_id>/migrations/<migration_id>/action")
@require("os_compute_api:servers:migrations:force_complete")
def act_on_server_migration(server_id: str, migration_id: str) -> Response:
    """Handle force_complete: pause the guest until the migration ends."""
    check_available(since=FORCE_COMPLETE_SINCE)
    if json_body() != {"force_complete": None}:
        raise errors.BadRequest(MALFORMED)
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
        found = migrations.find_live(session, server, migration_id)
        migrations.check_running(server, found)
    host_client()(found.source_compute, "end_migration", server_id)
    return empty(HTTPStatus.ACCEPTED)


@compute.delete("/servers/<server_id>/migrations/<migration_id>")
@require("os_compute_api:servers:migrations:delete")
def abort_server_migration(server_id: str, migration_id: str) -> Response:
    check_available(since=ABORT_SINCE)
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        found = migrations.find_live(session, server, migration_id)
        also_before = version() >= ABORT_QUEUED_SINCE
        is_running = migrations.request_abort(clock().now(), server, found, also_before=also_before)
        host = found.source_compute
    if is_running:
        host_client()(host, "abort_migration", server_id)
    return empty(HTTPStatus.ACCEPTED)


def _check_disks() -> None:
    if settings().shared_machines:
        raise errors.BadRequest(
            "Hosts of this cloud share their disks, and do not migrate servers. Evacuate servers when their host is "
            "down."
        )


def _read_progress(server_id: str, source: str, status: str) -> dict[str, int]:
    """Read byte counters from the source host; empty when the migration is not running or the host is unreachable."""
    if status != MigrationStatus.RUNNING:
        return {}
    try:
        return host_client()(source, "migration_progress", server_id) or {}
    except (errors.Unavailable, errors.Conflict):
        return {}
