"""Views of migrations: entries of /os-migrations, and live migrations in progress below their server."""

from typing import Any

from app.web.microversion import Version, v
from compute_api.models import Migration
from compute_api.operations.migration_workflow import ACTIVE_STATUSES
from compute_api.views import links
from compute_api.views.servers import format_microseconds

TYPE_SINCE, UUID_SINCE, OWNER_SINCE = v("2.23"), v("2.59"), v("2.80")
BYTES = ("memory", "disk")
PARTS = ("total", "processed", "remaining")


def entry(migration: Migration, version: Version) -> dict[str, Any]:
    """Render an entry of GET /os-migrations."""
    body = {
        **_common(migration, version),
        "instance_uuid": migration.server_id,
        "old_instance_type_id": migration.old_flavor,
        "new_instance_type_id": migration.new_flavor,
    }
    if version >= TYPE_SINCE:
        body["migration_type"] = migration.migration_type
        if migration.is_live and migration.status in ACTIVE_STATUSES:
            body["links"] = links.of(f"servers/{migration.server_id}/migrations", str(migration.id))
    return body


def live_migration(migration: Migration, progress: dict[str, int], version: Version) -> dict[str, Any]:
    """Render a live migration in progress, with the byte counters that its source host reports."""
    counted = {f"{what}_{part}_bytes": progress.get(f"{what}_{part}", 0) for what in BYTES for part in PARTS}
    return {**_common(migration, version), "server_uuid": migration.server_id, **counted}


def _common(migration: Migration, version: Version) -> dict[str, Any]:
    body = {
        "id": migration.id,
        "status": migration.status,
        "source_compute": migration.source_compute,
        "source_node": migration.source_compute,
        "dest_compute": migration.dest_compute,
        "dest_node": migration.dest_compute,
        "dest_host": migration.dest_host,
        "created_at": format_microseconds(migration.created_at),
        "updated_at": format_microseconds(migration.updated_at),
    }
    if version >= UUID_SINCE:
        body["uuid"] = migration.uuid
    if version >= OWNER_SINCE:
        body |= {"user_id": migration.user_id, "project_id": migration.project_id}
    return body
