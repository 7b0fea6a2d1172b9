"""Routes of hypervisors, one for each host: lists, details, statistics, uptime and servers."""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from flask import Response, request

from app.core import errors
from app.web.context import clock, database, settings
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import require
from app.web.responses import json
from compute_api.hosts import hosts, hypervisors, liveness, load
from compute_api.hosts.load import HostLoad
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import check_available, version
from compute_api.views import hypervisors as views
from compute_api.views.hypervisors import USAGE_UNTIL, UUID_SINCE, HypervisorContext

PAGES_SINCE, EMPTY_SERVERS_SINCE, SEARCH_UNTIL = v("2.33"), v("2.75"), v("2.52")


@compute.get("/os-hypervisors")
@require("os_compute_api:os-hypervisors:list")
def list_hypervisors() -> Response:
    return _list("/os-hypervisors", detail=False)


@compute.get("/os-hypervisors/detail")
@require("os_compute_api:os-hypervisors:list-detail")
def list_hypervisors_detail() -> Response:
    return _list("/os-hypervisors/detail", detail=True)


def _list(path: str, *, detail: bool) -> Response:
    list_params.check_known("limit", "marker", "hypervisor_hostname_pattern", "with_servers")
    pattern = request.args.get("hypervisor_hostname_pattern") if version() >= UUID_SINCE else None
    paging = page(request.args)
    is_paged = version() >= PAGES_SINCE
    if is_paged and pattern and ("limit" in request.args or "marker" in request.args):
        raise errors.BadRequest(
            "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported."
        )
    with database().reading() as session:
        known = hosts.list_hosts(session) if pattern is None else hypervisors.search(session, pattern)
        if is_paged:
            known = hypervisors.list_after(known, paging.marker, by_uuid=version() >= UUID_SINCE)[: paging.limit]
        loads = load.count_machines(session, known) if detail and version() <= USAGE_UNTIL else {}
        context = _make_context(liveness.down_before(session, clock().now()), loads)
        servers = load.list_servers(session, known) if _with_servers() else {}
    shown = [views.show(host, context) if detail else views.brief(host, context) for host in known]
    for host, body in zip(known, shown, strict=True):
        if host.name in servers and (servers[host.name] or version() >= EMPTY_SERVERS_SINCE):
            body["servers"] = views.servers(servers[host.name])
    response: dict[str, Any] = {"hypervisors": shown}
    if is_paged and known and len(known) == paging.limit and "limit" in request.args:
        href = url(f"/compute/v2.1{path}?{query_after(str(views.identify(known[-1], version())))}")
        response["hypervisors_links"] = [{"rel": "next", "href": href}]
    return json(response)


def _with_servers() -> bool:
    return version() >= UUID_SINCE and list_params.parse_boolean(request.args.get("with_servers", "false"))


@compute.get("/os-hypervisors/statistics")
@require("os_compute_api:os-hypervisors:statistics")
def show_hypervisor_statistics() -> Response:
    check_available(until=USAGE_UNTIL)
    with database().reading() as session:
        known = [host for host in hosts.list_hosts(session) if not host.disabled]
        loads = load.count_machines(session, known)
    return json({"hypervisor_statistics": views.statistics(known, loads)})


@compute.get("/os-hypervisors/<hypervisor_id>")
@require("os_compute_api:os-hypervisors:show")
def show_hypervisor(hypervisor_id: str) -> Response:
    list_params.check_known("with_servers")
    with database().reading() as session:
        host = hypervisors.find(session, _check_id(hypervisor_id), by_uuid=version() >= UUID_SINCE)
        loads = load.count_machines(session, [host]) if version() <= USAGE_UNTIL else {}
        body = views.show(host, _make_context(liveness.down_before(session, clock().now()), loads))
        if _with_servers():
            body["servers"] = views.servers(load.list_servers(session, [host])[host.name])
    return json({"hypervisor": body})


@compute.get("/os-hypervisors/<hypervisor_id>/uptime")
@require("os_compute_api:os-hypervisors:uptime")
def show_hypervisor_uptime(hypervisor_id: str) -> Response:
    check_available(until=USAGE_UNTIL)
    with database().reading() as session:
        host = hypervisors.find(session, _check_id(hypervisor_id), by_uuid=version() >= UUID_SINCE)
        context = _make_context(liveness.down_before(session, clock().now()))
    if host.name not in context.uptimes:
        raise errors.NotSupported("The uptime of remote hosts is not available.")
    return json({"hypervisor": {**views.brief(host, context), "uptime": context.uptimes[host.name]}})


@compute.get("/os-hypervisors/<pattern>/search")
@require("os_compute_api:os-hypervisors:search")
def search_hypervisors(pattern: str) -> Response:
    check_available(until=SEARCH_UNTIL)
    with database().reading() as session:
        known = hypervisors.search(session, pattern)
        context = _make_context(liveness.down_before(session, clock().now()))
    return json({"hypervisors": [views.brief(host, context) for host in known]})


@compute.get("/os-hypervisors/<pattern>/servers")
@require("os_compute_api:os-hypervisors:servers")
def list_hypervisor_servers(pattern: str) -> Response:
    check_available(until=SEARCH_UNTIL)
    with database().reading() as session:
        known = hypervisors.search(session, pattern)
        context = _make_context(liveness.down_before(session, clock().now()))
        servers = load.list_servers(session, known)
    shown = [views.brief(host, context) for host in known]
    for host, body in zip(known, shown, strict=True):
        if servers[host.name]:
            body["servers"] = views.servers(servers[host.name])
    return json({"hypervisors": shown})


def _check_id(hypervisor_id: str) -> str:
    """Return the id. Raises BadRequest from 2.53 on when it is no UUID."""
    if version() >= UUID_SINCE and not re.fullmatch(
        r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", hypervisor_id
    ):
        raise errors.BadRequest(f"Invalid uuid {hypervisor_id}")
    return hypervisor_id


def _make_context(down_before: datetime, loads: Mapping[str, HostLoad] | None = None) -> HypervisorContext:
    return HypervisorContext(
        version=version(),
        down_before=down_before,
        host_ip=_api_address(),
        loads=loads or {},
        uptimes={settings().host_name: _read_uptime()},
    )


def _api_address() -> str:
    """Return the address of the API, which is the local host's; ::1 when it listens on all addresses."""
    address = settings().address[0]
    return address if re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*", address) and address != "::" else "::1"


def _read_uptime() -> str:
    """Return the local host's uptime in the format of `uptime`."""
    seconds = float(Path("/proc/uptime").read_text().split()[0])
    averages = ", ".join(Path("/proc/loadavg").read_text().split()[:3])
    days, rest = divmod(int(seconds) // 60, 24 * 60)
    hours, minutes = divmod(rest, 60)
    up = (f"{days} days, " if days else "") + f"{hours}:{minutes:02}"
    return f" {clock().now():%H:%M:%S} up {up},  0 users,  load average: {averages}"
