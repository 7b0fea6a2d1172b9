"""Views of interfaces of servers (os-interface)."""

from collections.abc import Mapping
from typing import Any

from app.web.microversion import Version, v
from network_api.resources.ports import Nic

TAG_SINCE = v("2.70")


def show(nic: Nic, tags: Mapping[str, str], version: Version) -> dict[str, Any]:
    """Render an interface. `tags` maps port ids to tags."""
    body: dict[str, Any] = {
        "port_id": nic.port_id,
        "net_id": nic.network_id,
        "mac_addr": nic.mac,
        "port_state": nic.status,
        "fixed_ips": [{"subnet_id": nic.subnet_id, "ip_address": address.split("/")[0]} for address in nic.addresses],
    }
    if version >= TAG_SINCE:
        body["tag"] = tags.get(nic.port_id)
    return body
