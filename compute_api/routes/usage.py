"""Routes of usage, the billing feed: what projects used in a period, exact to the second; 2.40 pages it by server."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Response, request

from app.core import errors
from app.web.context import clock, database
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import enforce, require
from app.web.responses import json
from compute_api import usage
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import version
from compute_api.usage import ProjectTotal, ServerUsage
from compute_api.views.servers import format_microseconds

PAGES_SINCE = v("2.40")
HOUR = 3_600_000_000
"""Microseconds."""
FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d")


@compute.get("/os-simple-tenant-usage")
@require("os_compute_api:os-simple-tenant-usage:list")
def list_usage() -> Response:
    start, stop = _period()
    detailed = request.args.get("detailed") == "1"
    if version() < PAGES_SINCE and not detailed:
        with database().reading() as session:
            totals = usage.project_totals(session, clock().now(), start, stop)
        return json({"tenant_usages": [_shown(one, start, stop) for one in totals]})
    found, limit = _found(start, stop, None)
    by_project: dict[str, list[ServerUsage]] = {}
    for one in found:
        by_project.setdefault(one.project_id, []).append(one)
    body: dict[str, Any] = {
        "tenant_usages": [
            _shown(usage.sum_usage(project, of), start, stop, of if detailed else None)
            for project, of in by_project.items()
        ]
    }
    if limit is not None and len(found) == limit:
        href = url(f"/compute/v2.1/os-simple-tenant-usage?{query_after(found[-1].id)}")
        body["tenant_usages_links"] = [{"rel": "next", "href": href}]
    return json(body)


@compute.get("/os-simple-tenant-usage/<project_id>")
@require("os_compute_api:os-simple-tenant-usage:show")
def show_usage(project_id: str) -> Response:
    enforce("os_compute_api:os-simple-tenant-usage:show", {"project_id": project_id})
    start, stop = _period()
    found, limit = _found(start, stop, project_id)
    body: dict[str, Any] = {"tenant_usage": {}}
    if found:
        body = {"tenant_usage": _shown(usage.sum_usage(project_id, found), start, stop, found)}
    if limit is not None and len(found) == limit:
        href = url(f"/compute/v2.1/os-simple-tenant-usage/{project_id}?{query_after(found[-1].id)}")
        body["tenant_usage_links"] = [{"rel": "next", "href": href}]
    return json(body)


def _period() -> tuple[datetime, datetime]:
    list_params.check_known("start", "end", "detailed", "limit", "marker")
    now = clock().now()
    start, stop = _time("start", now), _time("end", now)
    if start > stop:
        raise errors.BadRequest("Invalid start time. The start time cannot occur after the end time.")
    return start, stop


def _found(start: datetime, stop: datetime, project_id: str | None) -> tuple[list[ServerUsage], int | None]:
    """The servers of the page, and how many make a page (None below 2.40)."""
    asked = page(request.args) if version() >= PAGES_SINCE else None
    limit, marker = (asked.limit, asked.marker) if asked else (None, None)
    with database().reading() as session:
        found = usage.list_usage(session, clock().now(), start, stop, project_id=project_id, limit=limit, marker=marker)
        return list(found), limit


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
    total: ProjectTotal, start: datetime, stop: datetime, servers: Sequence[ServerUsage] | None = None
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "tenant_id": total.project_id,
        "start": format_microseconds(start),
        "stop": format_microseconds(stop),
        "total_hours": total.servers / HOUR,
        "total_vcpus_usage": total.vcpus / HOUR,
        "total_memory_mb_usage": total.ram_mib / HOUR,
        "total_local_gb_usage": total.disk_gib / HOUR,
    }
    if servers is not None:
        body["server_usages"] = [_server(one) for one in servers]
    return body


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
        "started_at": format_microseconds(one.started_at),
        "ended_at": format_microseconds(one.ended_at),
        "state": one.vm_state,
    }
