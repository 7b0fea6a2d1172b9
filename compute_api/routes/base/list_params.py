"""Query parameters: known names by microversion, parsing, and the `ServerFilter` of GET /servers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
from flask import request
from oslo_utils import timeutils

from app.core import booleans, errors
from app.core.numbers import parse_integer
from app.web.context import caller
from app.web.microversion import v
from app.web.pagination import page
from app.web.policy import enforce
from compute_api import states
from compute_api.routes.base.context import version
from compute_api.servers.queries import SORT_KEYS, ServerFilter

STRICT, STRICT_STATUS, TAGS, BEFORE, LOCKED = v("2.75"), v("2.38"), v("2.26"), v("2.66"), v("2.73")
IP6_FOR_ALL, MORE_FOR_ALL = v("2.5"), v("2.83")

COLUMN_FILTERS = {
    "image": "image_id",
    "image_ref": "image_id",
    "flavor": "flavor_id",
    "uuid": "id",
    "reservation_id": "reservation_id",
    "launch_index": "launch_index",
}
"""Filters by a column for all users: column names by parameter."""

COLUMN_FILTERS_SINCE_2_83 = {
    "availability_zone": "availability_zone",
    "user_id": "user_id",
    "vm_state": "vm_state",
    "task_state": "task_state",
}
"""Filters by a column for admins, and from 2.83 on for all users; ignored below."""

ADMIN_COLUMN_FILTERS = {
    "host": "host",
    "node": "host",
    "hostname": "hostname",
    "description": "description",
    "display_description": "description",
    "access_ip_v4": "access_ipv4",
    "access_ip_v6": "access_ipv6",
    "locked_by": "locked_by",
}

IGNORED_FILTERS = {
    "kernel_id", "ramdisk_id", "launched_at", "terminated_at", "root_device_name", "auto_disk_config", "progress",
    "soft_deleted", "created_at", "cell_name",
}  # fmt: skip
"""Filters of Nova for values that servers here do not have; ignored."""

REFUSED_FILTERS = {
    "block_device_mapping", "services", "system_metadata", "info_cache", "security_groups", "pci_devices",
}  # fmt: skip
"""Names of Nova's tables, which Nova rejects as filters."""

IGNORED_SORT_KEYS = {
    "architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted", "deleted_at",
    "disable_terminate", "ephemeral_gb", "ephemeral_key_uuid", "id", "key_data", "launched_on", "memory_mb", "os_type",
    "reservation_id", "root_gb", "shutdown_terminate", "user_data", "vcpus", "vm_mode",
}  # fmt: skip
"""Sort keys that are ignored below 2.75 and rejected from then on."""

SERVER_PARAMETERS = (
    set(COLUMN_FILTERS) | set(COLUMN_FILTERS_SINCE_2_83) | set(ADMIN_COLUMN_FILTERS) | IGNORED_FILTERS | REFUSED_FILTERS
    | {"project_id", "tenant_id", "key_name", "power_state", "name", "display_name", "config_drive", "sort_key",
       "sort_dir", "all_tenants", "deleted", "status", "changes-since", "changes-before", "ip", "ip6", "limit",
       "marker", "tags", "tags-any", "not-tags", "not-tags-any", "locked", "metadata"}
)  # fmt: skip


def check_known(*known: str) -> None:
    """Raise BadRequest for unknown query parameters from 2.75 on; below they are ignored."""
    if version() >= STRICT and (unknown := sorted(set(request.args) - set(known))):
        names = ", ".join(f"'{name}'" for name in unknown)
        were = "was" if len(unknown) == 1 else "were"
        raise errors.BadRequest(
            f"Invalid input for query parameters. Additional properties are not allowed ({names} {were} unexpected)"
        )


def parse_boolean(text: str) -> bool:
    """Parse a boolean of a query string; an empty value means true. Raises BadRequest."""
    stripped = text.strip()
    boolean = booleans.parse_boolean(stripped) if stripped else True
    if boolean is None:
        raise errors.BadRequest(
            f"Unrecognized value '{text}', acceptable values are: '0', '1', 'f', 'false', 'n', 'no', 'off', 'on', "
            "'t', 'true', 'y', 'yes'"
        )
    return boolean


def parse_time(name: str) -> datetime | None:
    """Parse a time of a query string; None when it is missing. Raises BadRequest."""
    text = request.args.get(name)
    if text is None:
        return None
    try:
        moment = timeutils.parse_isotime(text)
    except ValueError:
        raise errors.BadRequest(
            f"Invalid input for query parameters {name}. Value: {text}. '{text}' is not a 'date-time'"
        ) from None
    assert isinstance(moment, datetime)
    return moment


def server_filter(rule: str) -> ServerFilter:
    """Parse the query of GET /servers or /servers/detail. `rule` is index or detail. Raises BadRequest, Forbidden."""
    check_known(*SERVER_PARAMETERS)
    arguments = request.args
    admin = caller().is_admin
    sees_later_filters = admin or version() >= MORE_FOR_ALL
    for name in arguments:
        if (name in REFUSED_FILTERS or name.startswith("_")) and admin:
            raise errors.BadRequest(f"Invalid filter field: {name}.")
    project: str | None = caller().project
    if parse_boolean(arguments.get("all_tenants", "0")):
        enforce(f"os_compute_api:servers:{rule}:get_all_tenants")
        project = arguments.get("project_id") or arguments.get("tenant_id")
    since = parse_time("changes-since")
    before = parse_time("changes-before") if version() >= BEFORE else None
    if since and before and since > before:
        raise errors.BadRequest("The value of changes-since must be less than or equal to changes-before.")
    statuses = tuple(arguments.getlist("status"))
    equal: dict[str, Any] = _column_filters(COLUMN_FILTERS)
    if sees_later_filters:
        equal |= _column_filters(COLUMN_FILTERS_SINCE_2_83)
        if "power_state" in arguments:
            equal["power_state"] = _parse_power_state(arguments["power_state"])
        if "config_drive" in arguments:
            equal["config_drive"] = parse_boolean(arguments["config_drive"])
    if admin:
        equal |= _column_filters(ADMIN_COLUMN_FILTERS)
    if "locked" in arguments and version() >= LOCKED:
        equal["locked"] = parse_boolean(arguments["locked"])
    paging = page(arguments)
    return ServerFilter(
        project_id=project,
        deleted=_deleted_filter(statuses, since, before),
        name=arguments.get("name") or arguments.get("display_name"),
        statuses=_check_statuses(statuses),
        equal=equal,
        key_name=arguments.get("key_name") if sees_later_filters else None,
        ip6=arguments.get("ip6") if admin or version() >= IP6_FOR_ALL else None,
        ip=arguments.get("ip"),
        changed_since=since,
        changed_before=before,
        tags=_parse_tags("tags"),
        tags_any=_parse_tags("tags-any"),
        not_tags=_parse_tags("not-tags"),
        not_tags_any=_parse_tags("not-tags-any"),
        metadata=_parse_metadata(),
        sort=_parse_sort(),
        limit=paging.limit,
        marker=paging.marker,
    )


def _column_filters(columns: dict[str, str]) -> dict[str, Any]:
    """Return the given column filters. Old clients send flavors and images as links."""
    return {
        column: request.args[name].rsplit("/", 1)[-1] if name in ("image", "flavor") else request.args[name]
        for name, column in columns.items()
        if request.args.get(name)
    }


def _deleted_filter(statuses: Sequence[str], since: datetime | None, before: datetime | None) -> bool | None:
    admin = caller().is_admin
    if any(status.lower() == "deleted" for status in statuses):
        if not admin:
            raise errors.Forbidden("Only administrators may list deleted instances")
        return True
    if "deleted" in request.args and admin:
        return parse_boolean(request.args["deleted"])
    return None if since is not None or before is not None else False


def _check_statuses(statuses: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [status for status in statuses if not states.vm_states_of(status) and not states.tasks_of(status)]
    if unknown and version() >= STRICT_STATUS:
        raise errors.BadRequest(f"Invalid status value: {', '.join(unknown)}")
    return statuses


def _parse_power_state(text: str) -> int:
    try:
        return parse_integer(text)
    except ValueError:
        raise errors.BadRequest(f"Invalid power_state '{text}'") from None


def _parse_tags(name: str) -> tuple[str, ...]:
    if version() < TAGS or name not in request.args:
        return ()
    return tuple(tag for text in request.args.getlist(name) for tag in text.split(","))


def _parse_metadata() -> dict[str, str]:
    """Parse the metadata filter, a JSON object such as {"role":"ci"}. Raises BadRequest."""
    text = request.args.get("metadata")
    if text is None:
        return {}
    try:
        metadata = orjson.loads(text)
    except orjson.JSONDecodeError:
        metadata = None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise errors.BadRequest(f"Invalid filter field: metadata. Value: {text}. It is a JSON object of strings.")
    return metadata


def _parse_sort() -> tuple[tuple[str, bool], ...]:
    names = request.args.getlist("sort_key")
    directions = request.args.getlist("sort_dir")
    if any(direction not in ("asc", "desc") for direction in directions):
        raise errors.BadRequest(f"Unknown sort direction, must be one of: asc, desc. Value: {', '.join(directions)}")
    if not names:
        return (("created_at", (directions or ["desc"])[0] == "desc"),)
    ignored = IGNORED_SORT_KEYS | ({"locked"} if version() < LOCKED else set())
    first = directions[0] if directions else "desc"
    sort = []
    for index, name in enumerate(names):
        if name in ignored and version() < STRICT:
            continue
        if name not in SORT_KEYS or name in ignored:
            raise errors.BadRequest(
                f"Invalid input for query parameters sort_key. Value: {name}. '{name}' is not one of "
                f"{sorted(set(SORT_KEYS) - ignored)}"
            )
        sort.append((name, (directions[index] if index < len(directions) else first) == "desc"))
    return tuple(sort) or (("created_at", True),)
