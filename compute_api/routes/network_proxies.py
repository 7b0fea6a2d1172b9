"""Nova's proxy APIs for networks, floating IPs, security groups and volumes; they end with microversion 2.35.

Networks come from the network service. Of the other resources this cloud has none: lists are empty, and a create is
refused with the status that Nova gives where a quota is exhausted.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from flask import Response

from app.core import errors
from app.web.context import caller, database
from app.web.microversion import v
from app.web.policy import require
from app.web.responses import json
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import version
from network_api.models import Network
from network_api.resources import networks

LAST_PROXY = v("2.35")

USER_FIELDS = ("cidr", "netmask", "gateway", "broadcast", "dns1", "dns2", "cidr_v6", "gateway_v6", "netmask_v6")
ADMIN_FIELDS = (
    *("created_at", "updated_at", "deleted_at", "deleted", "injected", "bridge", "vlan", "vpn_public_address"),
    *("vpn_public_port", "vpn_private_address", "dhcp_start", "project_id", "host", "bridge_interface", "multi_host"),
    *("priority", "rxtx_base", "mtu", "dhcp_server", "enable_dhcp", "share_address"),
)
"""Fields of nova-network's networks; null since Nova reads networks from Neutron."""


def _route(method: str, path: str, rule: str, answer: Callable[..., Response]) -> None:
    """Register a route that is not found from 2.36 on. `rule` is the policy name without its service."""

    @require(f"os_compute_api:{rule}")
    def view(**ids: str) -> Response:
        if version() > LAST_PROXY:
            raise errors.NotFound("The resource could not be found.")
        return answer(**ids)

    compute.add_url_rule(path, f"{method} {path}".replace(".", ""), view, methods=[method])


def _list_networks() -> Response:
    return json({"networks": [_network(one) for one in _visible_networks()]})


def _show_network(network_id: str) -> Response:
    return json({"network": _network(_find_network(network_id))})


def _list_tenant_networks() -> Response:
    return json({"networks": [_tenant_network(one) for one in _visible_networks()]})


def _show_tenant_network(network_id: str) -> Response:
    return json({"network": _tenant_network(_find_network(network_id))})


def _visible_networks() -> list[Network]:
    with database().reading() as session:
        return networks.list_visible(session, caller())


def _find_network(network_id: str) -> Network:
    with database().reading() as session:
        try:
            return networks.find(session, caller(), network_id)
        except errors.NotFound:
            raise errors.NotFound("Network not found") from None


def _network(network: Network) -> dict[str, Any]:
    fields = (*USER_FIELDS, *ADMIN_FIELDS) if caller().is_admin else USER_FIELDS
    return {"id": network.id, "label": network.name, **dict.fromkeys(fields)}


def _tenant_network(network: Network) -> dict[str, Any]:
    """`cidr` is the text None in Nova's answers too."""
    return {"id": network.id, "label": network.name, "cidr": "None"}


def _empty(key: str) -> Callable[[], Response]:
    return lambda: json({key: []})


def _absent(message: str) -> Callable[..., Response]:
    def answer(key: str = "") -> Response:
        raise errors.NotFound(message.format(key))

    return answer


def _absent_group(key: str) -> Response:
    try:
        UUID(key)
    except ValueError:
        raise errors.BadRequest("Security group id should be uuid") from None
    raise errors.NotFound(f"Security group {key} not found.")


def _exhausted(message: str) -> Callable[[], Response]:
    def answer() -> Response:
        raise errors.QuotaExceeded(message)

    return answer


_route("GET", "/os-networks", "os-networks:list", _list_networks)
_route("GET", "/os-networks/<network_id>", "os-networks:show", _show_network)
_route("GET", "/os-tenant-networks", "os-tenant-networks:list", _list_tenant_networks)
_route("GET", "/os-tenant-networks/<network_id>", "os-tenant-networks:show", _show_tenant_network)

_route("GET", "/os-floating-ip-pools", "os-floating-ip-pools", _empty("floating_ip_pools"))
_route("GET", "/os-floating-ips", "os-floating-ips:list", _empty("floating_ips"))
_route("POST", "/os-floating-ips", "os-floating-ips:create", _absent("No more floating IPs available."))
_route("GET", "/os-floating-ips/<key>", "os-floating-ips:show", _absent("Floating IP not found for ID {}"))
_route("DELETE", "/os-floating-ips/<key>", "os-floating-ips:delete", _absent("Floating IP not found for ID {}"))

_NO_GROUPS = "Quota exceeded, too many security groups."
_route("GET", "/os-security-groups", "os-security-groups:get", _empty("security_groups"))
_route("POST", "/os-security-groups", "os-security-groups:create", _exhausted(_NO_GROUPS))
_route("GET", "/os-security-groups/<key>", "os-security-groups:show", _absent_group)
_route("PUT", "/os-security-groups/<key>", "os-security-groups:update", _absent_group)
_route("DELETE", "/os-security-groups/<key>", "os-security-groups:delete", _absent_group)
_NO_RULE = "Security group rule {} not found."
_route("POST", "/os-security-group-rules", "os-security-groups:rule:create", _absent("Security group not found."))
_route("DELETE", "/os-security-group-rules/<key>", "os-security-groups:rule:delete", _absent(_NO_RULE))

for _path, _key, _rule, _title in (
    ("/os-volumes", "volumes", "os-volumes", "Volume"),
    ("/os-snapshots", "snapshots", "os-volumes:snapshots", "Snapshot"),
):
    _route("GET", _path, f"{_rule}:list", _empty(_key))
    _route("GET", f"{_path}/detail", f"{_rule}:detail", _empty(_key))
    _route("POST", _path, f"{_rule}:create", _exhausted(f"Quota exceeded: this cloud has no {_key}."))
    _route("GET", f"{_path}/<key>", f"{_rule}:show", _absent(f"{_title} {{}} could not be found."))
    _route("DELETE", f"{_path}/<key>", f"{_rule}:delete", _absent(f"{_title} {{}} could not be found."))
