"""Routes of servers that go to another host: migrate, os-migrateLive, evacuate, and what becomes of them."""

from http import HTTPStatus
from typing import Annotated, Any, Literal

from flask import Response, request
from pydantic import Field

from app.core import errors
from app.web.bodies import MALFORMED, Body, json_body, parse, since, until
from app.web.context import caller, clock, database, settings
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import require
from app.web.responses import empty, json
from compute_api.models import Migration
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import ask, request_id, transaction, version
from compute_api.schemas.fields import Boolean, Text
from compute_api.servers import migrations, servers
from compute_api.views import migrations as views

AUTO_SINCE, FORCE_SINCE, FORCE_UNTIL = v("2.25"), v("2.30"), v("2.67")
LISTED_SINCE, FORCE_COMPLETE_SINCE, ABORT_SINCE, ABORT_QUEUED_SINCE = v("2.23"), v("2.22"), v("2.24"), v("2.65")
PAGES_SINCE, BEFORE_SINCE, OWNER_SINCE = v("2.59"), v("2.66"), v("2.80")
NO_PASSWORD_SINCE, STAYS_OFF_SINCE = v("2.14"), v("2.95")
HostName = Annotated[str, Field(min_length=1, max_length=255)]


class Migrate(Body):
    """migrate."""

    host: Annotated[HostName | None, since("2.56")] = None


class MigrateLive(Body):
    """os-migrateLive. `block_migration`: whether disks are sent, which here they always are."""

    host: HostName | None
    block_migration: Boolean | Literal["auto"]
    disk_over_commit: Annotated[Boolean | None, until("2.24")] = None
    force: Annotated[Boolean, since("2.30"), until("2.67")] = False


class Evacuate(Body):
    """evacuate."""

    host: HostName | None = None
    admin_pass: Annotated[Text | None, Field(alias="adminPass")] = None
    on_shared_storage: Annotated[Boolean | None, Field(alias="onSharedStorage"), until("2.13")] = None
    force: Annotated[Boolean, since("2.29"), until("2.67")] = False


def migrate(server_id: str, body: Any) -> Response:
    asked = parse(Migrate, body or {}, version())
    _check_disks()
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        migrations.migrate(session, clock().now(), caller(), server, request_id(), host=asked.host)
    return empty(HTTPStatus.ACCEPTED)


def migrate_live(server_id: str, body: Any) -> Response:
    asked = parse(MigrateLive, body, version())
    _check_disks()
    if asked.block_migration == "auto" and version() < AUTO_SINCE:
        raise errors.BadRequest("Invalid input for field/attribute block_migration. Value: auto. It is not a boolean.")
    if asked.force and asked.host is None:
        raise errors.BadRequest("Can't force to a non-provided destination")
    if asked.block_migration is False:
        raise errors.BadRequest(
            f"{server_id} is not on shared storage: Shared storage live-migration requires either shared storage or "
            "boot-from-volume with no local disks."
        )
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        # Before 2.30 a host that was named was not asked whether it suits the server.
        forced = asked.force or (asked.host is not None and version() < FORCE_SINCE)
        now = clock().now()
        migrations.live_migrate(session, now, caller(), server, request_id(), host=asked.host, forced=forced)
    return empty(HTTPStatus.ACCEPTED)


def evacuate(server_id: str, body: Any) -> Response:
    asked = parse(Evacuate, body or {}, version())
    if asked.force and asked.host is None:
        raise errors.BadRequest("Can't force to a non-provided destination")
    if asked.on_shared_storage is None and version() < NO_PASSWORD_SINCE:
        raise errors.BadRequest("Invalid input for field/attribute evacuate. 'onSharedStorage' is a required property")
    shared = bool(settings().shared_machines)
    if asked.on_shared_storage not in (None, shared):
        raise errors.BadRequest(
            "Invalid state of instance files on shared storage: hosts of this cloud "
            f"{'share' if shared else 'do not share'} their disks."
        )
    if asked.on_shared_storage and asked.admin_pass:
        raise errors.BadRequest("admin password can't be changed on existing disk")
    with transaction() as session:
        password = migrations.evacuate(
            session,
            clock().now(),
            caller(),
            servers.find(session, caller(), server_id),
            request_id(),
            host=asked.host,
            admin_pass=asked.admin_pass,
            forced=asked.force,
            stays_off=version() >= STAYS_OFF_SINCE,
            keep_disks=shared,
        )
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
            raise errors.BadRequest(f"Invalid input for query parameters. They are not known here: {unknown}")
    given = {name: request.args[name] for name in known if request.args.get(name)}
    has_pages = version() >= PAGES_SINCE
    asked = page(request.args)
    wanted = migrations.MigrationFilter(
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
        limit=asked.limit + 1 if has_pages else None,
        marker=asked.marker if has_pages else None,
    )
    if wanted.changed_since and wanted.changed_before and wanted.changed_since > wanted.changed_before:
        raise errors.BadRequest("The value of changes-since must be less than or equal to changes-before.")
    with database().reading() as session:
        found = migrations.list_migrations(session, wanted)
    shown = found[: asked.limit] if has_pages else found
    body: dict[str, Any] = {"migrations": [views.entry(one, version()) for one in shown]}
    if has_pages and len(found) > asked.limit > 0:
        href = url(f"/compute/v2.1/os-migrations?{query_after(shown[-1].uuid)}")
        body["migrations_links"] = [{"rel": "next", "href": href}]
    return json(body)


@compute.get("/servers/<server_id>/migrations")
@require("os_compute_api:servers:migrations:index")
def list_server_migrations(server_id: str) -> Response:
    _since(LISTED_SINCE)
    with database().reading() as session:
        found = migrations.list_live(session, servers.find(session, caller(), server_id))
    return json({"migrations": [views.live_migration(one, _progress(one), version()) for one in found]})


@compute.get("/servers/<server_id>/migrations/<migration_id>")
@require("os_compute_api:servers:migrations:show")
def show_server_migration(server_id: str, migration_id: str) -> Response:
    _since(LISTED_SINCE)
    with database().reading() as session:
        found = migrations.find_live(session, servers.find(session, caller(), server_id), migration_id)
    return json({"migration": views.live_migration(found, _progress(found), version())})


@compute.post("/servers/<server_id>/migrations/<migration_id>/action")
@require("os_compute_api:servers:migrations:force_complete")
def act_on_server_migration(server_id: str, migration_id: str) -> Response:
    """force_complete: the guest may stand still for as long as it takes."""
    _since(FORCE_COMPLETE_SINCE)
    if json_body() != {"force_complete": None}:
        raise errors.BadRequest(MALFORMED)
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
        found = migrations.find_live(session, server, migration_id)
        migrations.check_running(server, found)
    ask()(found.source_compute, "end_migration", server_id)
    return empty(HTTPStatus.ACCEPTED)


@compute.delete("/servers/<server_id>/migrations/<migration_id>")
@require("os_compute_api:servers:migrations:delete")
def abort_server_migration(server_id: str, migration_id: str) -> Response:
    _since(ABORT_SINCE)
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        found = migrations.find_live(session, server, migration_id)
        also_before = version() >= ABORT_QUEUED_SINCE
        is_running = migrations.request_abort(clock().now(), server, found, also_before=also_before)
        host = found.source_compute
    if is_running:
        ask()(host, "abort_migration", server_id)
    return empty(HTTPStatus.ACCEPTED)


def _check_disks() -> None:
    if settings().shared_machines:
        raise errors.BadRequest(
            "Hosts of this cloud share their disks, and do not send them to each other. Servers are evacuated when "
            "their host is down."
        )


def _since(first: Any) -> None:
    if version() < first:
        raise errors.NotFound("The resource could not be found.")


def _progress(migration: Migration) -> dict[str, int]:
    """What the host says that sends the guest; nothing when it is not at it, or does not answer."""
    if migration.status != "running":
        return {}
    try:
        return ask()(migration.source_compute, "migration_progress", migration.server_id) or {}
    except (errors.Unavailable, errors.Conflict):
        return {}
