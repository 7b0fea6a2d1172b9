"""Routes of hypervisors, one a host: 2.28 (cpu_info an object), 2.33 (pages), 2.53 (UUIDs, servers), 2.88 (less)."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from flask import Response, request
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.core import errors
from app.web.context import clock, database, settings
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import require
from app.web.responses import json
from compute_api.hosts import hosts, liveness
from compute_api.models import Host, Server
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import version
from compute_api.states import PowerState

CPU_OBJECT_SINCE, PAGES_SINCE, UUID_SINCE, LESS_SINCE = v("2.28"), v("2.33"), v("2.53"), v("2.88")
SHOW_SERVERS_SINCE = v("2.75")


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
    asked = page(request.args)
    paged = version() >= PAGES_SINCE
    if paged and pattern and ("limit" in request.args or "marker" in request.args):
        raise errors.BadRequest(
            "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported."
        )
    with database().reading() as session:
        known = hosts.list_hosts(session)
        if pattern is not None:
            known = [host for host in known if pattern in host.name]
            if not known:
                raise errors.NotFound(f"No hypervisor matching '{pattern}' could be found.")
        if paged:
            known = _after(known, asked.marker)[: asked.limit]
        loads = _loads(session, known) if detail else {}
        silent_before = liveness.down_before(session, clock().now())
        shown = [_shown(host, silent_before, loads, detail=detail) for host in known]
        if _with_servers():
            servers = _servers(session, known)
            for host, body in zip(known, shown, strict=True):
                body["servers"] = servers[host.name]
                if not body["servers"] and version() < SHOW_SERVERS_SINCE:
                    del body["servers"]
    listed: dict[str, Any] = {"hypervisors": shown}
    if paged and known and len(known) == asked.limit and "limit" in request.args:
        href = url(f"/compute/v2.1{path}?{query_after(str(_id(known[-1])))}")
        listed["hypervisors_links"] = [{"rel": "next", "href": href}]
    return json(listed)


def _after(known: Sequence[Host], marker: str | None) -> list[Host]:
    if marker is None:
        return list(known)
    for at, host in enumerate(known):
        if str(_id(host)) == marker:
            return list(known[at + 1 :])
    raise errors.BadRequest(f"marker [{marker}] not found")


def _with_servers() -> bool:
    return version() >= UUID_SINCE and list_params.parse_boolean(request.args.get("with_servers", "false"))


@compute.get("/os-hypervisors/statistics")
@require("os_compute_api:os-hypervisors:statistics")
def show_hypervisor_statistics() -> Response:
    if version() >= LESS_SINCE:
        raise errors.NotFound("The resource could not be found.")
    with database().reading() as session:
        known = [host for host in hosts.list_hosts(session) if not host.disabled]
        loads = _loads(session, known)
        sizes = [_sizes(host, loads) for host in known]
    names = (
        "vcpus", "vcpus_used", "memory_mb", "memory_mb_used", "local_gb", "local_gb_used", "free_ram_mb",
        "free_disk_gb", "disk_available_least", "current_workload", "running_vms",
    )  # fmt: skip
    totals = {name: sum(one[name] for one in sizes) for name in names}
    return json({"hypervisor_statistics": {"count": len(known), **totals}})


@compute.get("/os-hypervisors/<hypervisor_id>")
@require("os_compute_api:os-hypervisors:show")
def show_hypervisor(hypervisor_id: str) -> Response:
    list_params.check_known("with_servers")
    with database().reading() as session:
        host = _find(session, hypervisor_id)
        silent_before = liveness.down_before(session, clock().now())
        body = _shown(host, silent_before, _loads(session, [host]), detail=True)
        if _with_servers():
            body["servers"] = _servers(session, [host])[host.name]
    return json({"hypervisor": body})


@compute.get("/os-hypervisors/<hypervisor_id>/uptime")
@require("os_compute_api:os-hypervisors:uptime")
def show_hypervisor_uptime(hypervisor_id: str) -> Response:
    if version() >= LESS_SINCE:
        raise errors.NotFound("The resource could not be found.")
    with database().reading() as session:
        host = _find(session, hypervisor_id)
        body = _shown(host, liveness.down_before(session, clock().now()), {}, detail=False)
    if (text := _uptime(host)) is None:
        raise errors.NotSupported("Only this machine's own uptime is known.")
    return json({"hypervisor": {**body, "uptime": text}})


@compute.get("/os-hypervisors/<pattern>/search")
@require("os_compute_api:os-hypervisors:search")
def search_hypervisors(pattern: str) -> Response:
    with database().reading() as session:
        silent_before = liveness.down_before(session, clock().now())
        shown = [_shown(host, silent_before, {}, detail=False) for host in _matching(session, pattern)]
    return json({"hypervisors": shown})


@compute.get("/os-hypervisors/<pattern>/servers")
@require("os_compute_api:os-hypervisors:servers")
def list_hypervisor_servers(pattern: str) -> Response:
    shown = []
    with database().reading() as session:
        known = _matching(session, pattern)
        servers = _servers(session, known)
        silent_before = liveness.down_before(session, clock().now())
        for host in known:
            body = _shown(host, silent_before, {}, detail=False)
            if servers[host.name]:
                body["servers"] = servers[host.name]
            shown.append(body)
    return json({"hypervisors": shown})


def _matching(session: Session, pattern: str) -> list[Host]:
    if version() >= UUID_SINCE:
        raise errors.NotFound("The resource could not be found.")
    found = [host for host in hosts.list_hosts(session) if pattern in host.name]
    if not found:
        raise errors.NotFound(f"No hypervisor matching '{pattern}' could be found.")
    return found


def _id(host: Host) -> int | str:
    return host.id if version() >= UUID_SINCE else host.seq


def _find(session: Session, hypervisor_id: str) -> Host:
    if version() >= UUID_SINCE and not re.fullmatch(
        r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", hypervisor_id
    ):
        raise errors.BadRequest(f"Invalid uuid {hypervisor_id}")
    for host in hosts.list_hosts(session):
        if str(_id(host)) == hypervisor_id.lower():
            return host
    raise errors.NotFound(f"Hypervisor with ID '{hypervisor_id}' could not be found.")


def _here(known: Sequence[Host]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Server.host.in_([host.name for host in known]), Server.deleted.is_(False)


def _servers(session: Session, known: Sequence[Host]) -> dict[str | None, list[dict[str, str]]]:
    """The servers of each host, by its name."""
    query = select(Server.host, Server.id, Server.name).where(*_here(known)).order_by(Server.seq)
    found: dict[str | None, list[dict[str, str]]] = {host.name: [] for host in known}
    for host, server_id, name in session.execute(query):
        found[host].append({"uuid": server_id, "name": name})
    return found


class _Load(NamedTuple):
    """How many machines of a host run, and how many something is being done to."""

    running: int = 0
    busy: int = 0


def _loads(session: Session, known: Sequence[Host]) -> dict[str | None, _Load]:
    """By the host's name; hosts without servers are left out. Nothing where it is not shown any more."""
    if version() >= LESS_SINCE:
        return {}
    running = func.count().filter(Server.power_state == PowerState.RUNNING)
    busy = func.count().filter(Server.task_state.is_not(None))
    query = select(Server.host, running, busy).where(*_here(known)).group_by(Server.host)
    return {host: _Load(*counts) for host, *counts in session.execute(query)}


def _shown(host: Host, silent_before: datetime, loads: Mapping[str | None, _Load], *, detail: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": _id(host),
        "hypervisor_hostname": host.name,
        "state": "up" if hosts.is_up(host, silent_before) else "down",
        "status": "disabled" if host.disabled else "enabled",
    }
    if not detail:
        return body
    body["hypervisor_type"] = "QEMU"
    body["hypervisor_version"] = host.hypervisor_version
    body["host_ip"] = _address()
    body["service"] = {"id": _id(host), "host": host.name, "disabled_reason": host.disabled_reason}
    if version() >= LESS_SINCE:
        body["uptime"] = _uptime(host)
        return body
    body |= _sizes(host, loads)
    cpu = {"model": host.cpu_model, "accelerator": host.accelerator}
    body["cpu_info"] = cpu if version() >= CPU_OBJECT_SINCE else orjson.dumps(cpu).decode()
    return body


def _sizes(host: Host, loads: Mapping[str | None, _Load]) -> dict[str, int]:
    load = loads.get(host.name, _Load())
    return {
        "vcpus": host.vcpus,
        "vcpus_used": host.vcpus_used,
        "memory_mb": host.memory_mib,
        "memory_mb_used": host.memory_mib_used,
        "local_gb": host.disk_gib,
        "local_gb_used": host.disk_gib_used,
        "free_ram_mb": host.memory_mib - host.memory_mib_used,
        "free_disk_gb": host.disk_gib - host.disk_gib_used,
        "disk_available_least": 0 if host.disk_is_low else host.disk_gib_limit - host.disk_gib_used,
        "current_workload": load.busy,
        "running_vms": load.running,
    }


def _address() -> str:
    """Where the cloud listens, which is this host; ::1 when that is every address."""
    address = settings().address[0]
    return address if re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*", address) and address != "::" else "::1"


def _uptime(host: Host) -> str | None:
    """As `uptime` prints it; None for a host that is not this machine."""
    if host.name != settings().host_name:
        return None
    seconds = float(Path("/proc/uptime").read_text().split()[0])
    load = ", ".join(Path("/proc/loadavg").read_text().split()[:3])
    days, rest = divmod(int(seconds) // 60, 24 * 60)
    hours, minutes = divmod(rest, 60)
    up = (f"{days} days, " if days else "") + f"{hours}:{minutes:02}"
    return f" {clock().now():%H:%M:%S} up {up},  0 users,  load average: {load}"
