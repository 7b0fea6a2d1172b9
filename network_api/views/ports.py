"""Response documents of ports."""

from collections.abc import Sequence
from typing import Any

from orjson import Fragment

from network_api.views.times import format_time

EMPTY_LIST: list[Any] = []
EMPTY_OBJECT: dict[str, Any] = {}
"""Shared by all documents: allocating them for each of a thousand ports would cost a good part of a request."""


def port(row: Sequence[Any], *, binding: bool) -> dict[str, Any]:
    """Render a row of `listings.ports.PORTS`. `binding` adds the host, for operators.

    The row is unpacked at once, which is three times as fast as reading its columns by name.
    """
    (
        port_id,
        name,
        description,
        project_id,
        network_id,
        mac,
        subnet_id,
        address,
        admin_state_up,
        status,
        device_id,
        device_owner,
        pairs,
        ipv4_address,
        tags,
        created_at,
        updated_at,
        revision,
        host,
    ) = row
    body = {
        "id": port_id,
        "name": name,
        "description": description,
        "tenant_id": project_id,
        "project_id": project_id,
        "network_id": network_id,
        "mac_address": mac,
        "fixed_ips": [{"subnet_id": subnet_id, "ip_address": address}] if address else EMPTY_LIST,
        "admin_state_up": admin_state_up,
        "status": status,
        "device_id": device_id,
        "device_owner": device_owner,
        "security_groups": EMPTY_LIST,
        "allowed_address_pairs": Fragment(pairs),
        "ipv4_address": ipv4_address,
        "extra_dhcp_opts": EMPTY_LIST,
        "port_security_enabled": True,
        "binding:vnic_type": "normal",
        "tags": Fragment(tags),
        "created_at": format_time(created_at),
        "updated_at": format_time(updated_at),
        "revision_number": revision,
    }
    if binding:
        body["binding:host_id"] = host or ""
        body["binding:vif_type"] = "tap" if host else "unbound"
        body["binding:vif_details"] = EMPTY_OBJECT
        body["binding:profile"] = EMPTY_OBJECT
    return body
