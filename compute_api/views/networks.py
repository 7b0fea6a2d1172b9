"""Views of the network proxies os-networks and os-tenant-networks (until microversion 2.35)."""

from typing import Any

from network_api.models import Network

USER_FIELDS = ("cidr", "netmask", "gateway", "broadcast", "dns1", "dns2", "cidr_v6", "gateway_v6", "netmask_v6")
ADMIN_FIELDS = (
    *("created_at", "updated_at", "deleted_at", "deleted", "injected", "bridge", "vlan", "vpn_public_address"),
    *("vpn_public_port", "vpn_private_address", "dhcp_start", "project_id", "host", "bridge_interface", "multi_host"),
    *("priority", "rxtx_base", "mtu", "dhcp_server", "enable_dhcp", "share_address"),
)
"""Fields of nova-network's networks; null since Nova reads networks from Neutron."""


def show(network: Network, *, is_admin: bool) -> dict[str, Any]:
    """Render a network of os-networks."""
    fields = (*USER_FIELDS, *ADMIN_FIELDS) if is_admin else USER_FIELDS
    return {"id": network.id, "label": network.name, **dict.fromkeys(fields)}


def tenant_network(network: Network) -> dict[str, Any]:
    """Render a network of os-tenant-networks. `cidr` is the text None, as in Nova."""
    return {"id": network.id, "label": network.name, "cidr": "None"}
