"""Routes of availability zones, with their hosts for admins."""

from typing import Any

from flask import Response

from app.web.context import clock, database
from app.web.policy import require
from app.web.responses import json
from compute_api.hosts import hosts, liveness
from compute_api.routes.base.blueprint import compute
from compute_api.views.servers import format_microseconds


@compute.get("/os-availability-zone")
@require("os_compute_api:os-availability-zone:list")
def list_zones() -> Response:
    with database().reading() as session:
        known = hosts.list_hosts(session)
        down_before = liveness.down_before(session, clock().now())
    zones = sorted({host.zone for host in known})
    available = {host.zone for host in known if hosts.is_up(host, down_before) and not host.disabled}
    shown = [{"zoneName": zone, "zoneState": {"available": zone in available}, "hosts": None} for zone in zones]
    return json({"availabilityZoneInfo": shown})


@compute.get("/os-availability-zone/detail")
@require("os_compute_api:os-availability-zone:detail")
def list_zones_detail() -> Response:
    with database().reading() as session:
        known = hosts.list_hosts(session)
        down_before = liveness.down_before(session, clock().now())
    zones: dict[str, dict[str, Any]] = {}
    for host in known:
        service = {
            "available": not host.disabled,
            "active": hosts.is_up(host, down_before),
            "updated_at": format_microseconds(host.last_seen),
        }
        zones.setdefault(host.zone, {})[host.name] = {"nova-compute": service}
    shown = [
        {
            "zoneName": zone,
            "zoneState": {
                "available": any(
                    one["nova-compute"]["active"] and one["nova-compute"]["available"] for one in members.values()
                )
            },
            "hosts": members,
        }
        for zone, members in sorted(zones.items())
    ]
    return json({"availabilityZoneInfo": shown})
