"""Routes of usage, the billing feed: what projects used in a period, exact to the second; 2.40 pages it by server."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Response, request

from app import errors
from app.web.context import clock, database
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import enforce, require
from app.web.responses import json
from compute_api import usage
from compute_api.routes import queries
from compute_api.routes.blueprint import compute
from compute_api.routes.context import version
from compute_api.usage import ServerUsage
from compute_api.views.servers import micro

PAGES_SINCE = v("2.40")
FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d")


@compute.get("/os-simple-tenant-usage")
@require("os_compute_api:os-simple-tenant-usage:list")
def list_usage() -> Response:
    found, start, stop, limit = _found(None)
    by_project: dict[str, list[ServerUsage]] = {}
    for one in found:
        by_project.setdefault(one.project_id, []).append(one)
    detailed = request.args.get("detailed") == "1"
    body: dict[str, Any] = {
        "tenant_usages": [_shown(project, of, start, stop, detailed) for project, of in by_project.items()]
    }
    if limit is not None and len(found) == limit:
        href = url(f"/compute/v2.1/os-simple-tenant-usage?{query_after(found[-1].id)}")
        body["tenant_usages_links"] = [{"rel": "next", "href": href}]
    return json(body)


@compute.get("/os-simple-tenant-usage/<project_id>")
@require("os_compute_api:os-simple-tenant-usage:show")
def show_usage(project_id: str) -> Response:
    enforce("os_compute_api:os-simple-tenant-usage:show", {"project_id": project_id})
    found, start, stop, limit = _found(project_id)
    body: dict[str, Any] = {"tenant_usage": _shown(project_id, found, start, stop, True) if found else {}}
    if limit is not None and len(found) == limit:
        href = url(f"/compute/v2.1/os-simple-tenant-usage/{project_id}?{query_after(found[-1].id)}")
        body["tenant_usage_links"] = [{"rel": "next", "href": href}]
    return json(body)


def _found(project_id: str | None) -> tuple[list[ServerUsage], datetime, datetime, int | None]:
    """The servers of the page, the period, and how many make a page (None below 2.40)."""
    queries.only("start", "end", "detailed", "limit", "marker")
    now = clock().now()
    start, stop = _time("start", now), _time("end", now)
    if start > stop:
        raise errors.BadRequest("Invalid start time. The start time cannot occur after the end time.")
    asked = page(request.args) if version() >= PAGES_SINCE else None
    with database().reading() as session:
        found = list(
            usage.within(
                session,
                now,
                start,
                stop,
                project_id=project_id,
                limit=asked.limit if asked else None,
                marker=asked.marker if asked else None,
            )
        )
    return found, start, stop, asked.limit if asked else None


def _time(name: str, default: datetime) -> datetime:
    text = request.args.get(name)
    if not text:
        return default
    for form in FORMATS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise errors.BadRequest(f"Invalid input for query parameters {name}. Value: {text}. Datetime is in invalid format")


def _shown(
    project_id: str, found: Sequence[ServerUsage], start: datetime, stop: datetime, detailed: bool
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "tenant_id": project_id,
        "start": micro(start),
        "stop": micro(stop),
        "total_hours": sum(one.seconds for one in found) / 3600,
        "total_vcpus_usage": _sum(found, lambda flavor: flavor["vcpus"]),
        "total_memory_mb_usage": _sum(found, lambda flavor: flavor["ram"]),
        "total_local_gb_usage": _sum(found, usage.disk_gib),
    }
    if detailed:
        body["server_usages"] = [_server(one) for one in found]
    return body


def _sum(found: Sequence[ServerUsage], measure: Callable[[dict[str, Any]], int]) -> float:
    """Hours of something."""
    return sum(seconds * measure(flavor) for one in found for seconds, flavor in one.parts) / 3600


def _server(one: ServerUsage) -> dict[str, Any]:
    return {
        "instance_id": one.id,
        "tenant_id": one.project_id,
        "name": one.name,
        "flavor": one.flavor["name"],
        "vcpus": one.flavor["vcpus"],
        "memory_mb": one.flavor["ram"],
        "local_gb": one.disk_gib,
        "hours": one.hours,
        "uptime": one.uptime_seconds,
        "started_at": micro(one.started_at),
        "ended_at": micro(one.ended_at),
        "state": one.vm_state,
    }
