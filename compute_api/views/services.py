"""Views of services (nova-compute) of hosts."""

from datetime import datetime
from typing import Any

from app.web.microversion import Version, v
from compute_api.hosts import hosts
from compute_api.hosts.services import BINARY
from compute_api.models import Host
from compute_api.views.servers import format_microseconds

FORCED_DOWN_SINCE, UUID_SINCE = v("2.11"), v("2.53")


def show(host: Host, down_before: datetime, version: Version) -> dict[str, Any]:
    """Render the service of a host, which is down when its last heartbeat is older than `down_before`."""
    body: dict[str, Any] = {
        "id": host.id if version >= UUID_SINCE else host.seq,
        "binary": BINARY,
        "host": host.name,
        "zone": host.zone,
        "status": _status(host),
        "state": "up" if hosts.is_up(host, down_before) else "down",
        "updated_at": format_microseconds(host.last_seen),
        "disabled_reason": host.disabled_reason,
    }
    if version >= FORCED_DOWN_SINCE:
        body["forced_down"] = host.forced_down
    return body


def enabled(host: Host) -> dict[str, Any]:
    """Render the response of enable, disable and disable-log-reason."""
    body: dict[str, Any] = {"host": host.name, "binary": BINARY, "status": _status(host)}
    if host.disabled_reason is not None:
        body["disabled_reason"] = host.disabled_reason
    return body


def forced_down(host: Host) -> dict[str, Any]:
    """Render the response of force-down."""
    return {"host": host.name, "binary": BINARY, "forced_down": host.forced_down}


def _status(host: Host) -> str:
    return "disabled" if host.disabled else "enabled"
