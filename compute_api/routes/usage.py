"""Routes of usage reports for billing: resources that projects used in a period; 2.40 added pages of servers."""

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
from compute_api.usage import ServerUsage
from compute_api.views import usage as views

PAGES_SINCE = v("2.40")
FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d")


@compute.get("/os-simple-tenant-usage")
@require("os_compute_api:os-simple-tenant-usage:list")
def list_usage() -> Response:
    start, stop = _parse_period()
    detailed = request.args.get("detailed") == "1"
    if version() < PAGES_SINCE and not detailed:
        with database().reading() as session:
            totals = usage.project_totals(session, clock().now(), start, stop)
        return json({"tenant_usages": [views.show(total, start, stop) for total in totals]})
    found, limit = _list_servers(start, stop, None)
    by_project: dict[str, list[ServerUsage]] = {}
    for server in found:
        by_project.setdefault(server.project_id, []).append(server)
    body: dict[str, Any] = {
        "tenant_usages": [
            views.show(usage.sum_usage(project, servers), start, stop, servers if detailed else None)
            for project, servers in by_project.items()
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
    start, stop = _parse_period()
    found, limit = _list_servers(start, stop, project_id)
    body: dict[str, Any] = {"tenant_usage": {}}
    if found:
        body = {"tenant_usage": views.show(usage.sum_usage(project_id, found), start, stop, found)}
    if limit is not None and len(found) == limit:
        href = url(f"/compute/v2.1/os-simple-tenant-usage/{project_id}?{query_after(found[-1].id)}")
        body["tenant_usage_links"] = [{"rel": "next", "href": href}]
    return json(body)


def _parse_period() -> tuple[datetime, datetime]:
    list_params.check_known("start", "end", "detailed", "limit", "marker")
    now = clock().now()
    start, stop = _parse_time("start", now), _parse_time("end", now)
    if start > stop:
        raise errors.BadRequest("Invalid start time. The start time cannot occur after the end time.")
    return start, stop


def _list_servers(start: datetime, stop: datetime, project_id: str | None) -> tuple[list[ServerUsage], int | None]:
    """Return a page of servers and the size of pages, None below 2.40."""
    paging = page(request.args) if version() >= PAGES_SINCE else None
    limit, marker = (paging.limit, paging.marker) if paging else (None, None)
    with database().reading() as session:
        found = usage.list_usage(session, clock().now(), start, stop, project_id=project_id, limit=limit, marker=marker)
        return list(found), limit


def _parse_time(name: str, default: datetime) -> datetime:
    text = request.args.get(name)
    if not text:
        return default
    for form in FORMATS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise errors.BadRequest(f"Invalid input for query parameters {name}. Value: {text}. Datetime is in invalid format")
