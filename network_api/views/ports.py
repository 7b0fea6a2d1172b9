"""A port as Neutron shows it."""

from typing import Any

from sqlalchemy import Row

from network_api.views.times import stamp


def port(row: Row[Any], *, binding: bool) -> dict[str, Any]:
    """The document of one row of `port_listing.PORTS`. `binding` adds where the port is, which is for operators."""
    body = {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "tenant_id": row.project_id,
        "project_id": row.project_id,
        "network_id": row.network_id,
        "mac_address": row.mac_address,
        "fixed_ips": [{"subnet_id": row.subnet_id, "ip_address": row.ip_address}] if row.ip_address else [],
        "admin_state_up": row.admin_state_up,
        "status": row.status,
        "device_id": row.device_id,
        "device_owner": row.device_owner,
        "security_groups": [],
        "allowed_address_pairs": row.allowed_address_pairs,
        "ipv4_address": row.ipv4_address,
        "extra_dhcp_opts": [],
        "port_security_enabled": True,
        "binding:vnic_type": "normal",
        "tags": row.tags,
        "created_at": stamp(row.created_at),
        "updated_at": stamp(row.updated_at),
    }
    if binding:
        body["binding:host_id"] = row.binding_host or ""
        body["binding:vif_type"] = "tap" if row.binding_host else "unbound"
        body["binding:vif_details"] = {}
        body["binding:profile"] = {}
    return body
