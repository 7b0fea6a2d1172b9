"""Nova's proxy APIs for networks, floating IPs, security groups and volumes; they end with microversion 2.35.

Networks come from the network service. The other resources do not exist: lists are empty, and create requests fail
with the status of an exceeded quota.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from flask import Response

from app.core import errors
from app.web.context import caller, database
from app.web.microversion import v
from app.web.policy import require
from app.web.responses import json
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import check_available
from compute_api.views import networks as views
from network_api.resources import networks

LAST_PROXY = v("2.35")


def _route(method: str, path: str, rule: str, handler: Callable[..., Response]) -> None:
    """Register a route that is not found from 2.36 on. `rule` is the policy name without its service."""

    @require(f"os_compute_api:{rule}")
    def view(**ids: str) -> Response:
        check_available(until=LAST_PROXY)
        return handler(**ids)

    compute.add_url_rule(path, f"{method} {path}".replace(".", ""), view, methods=[method])


def _list_networks() -> Response:
    with database().reading() as session:
        found = networks.list_visible(session, caller())
    return json({"networks": [views.show(network, is_admin=caller().is_admin) for network in found]})


def _show_network(network_id: str) -> Response:
    with _missing_network(), database().reading() as session:
        network = networks.find(session, caller(), network_id)
    return json({"network": views.show(network, is_admin=caller().is_admin)})


def _list_tenant_networks() -> Response:
    with database().reading() as session:
        found = networks.list_visible(session, caller())
    return json({"networks": [views.tenant_network(network) for network in found]})


def _show_tenant_network(network_id: str) -> Response:
    with _missing_network(), database().reading() as session:
        network = networks.find(session, caller(), network_id)
    return json({"network": views.tenant_network(network)})


@contextmanager
def _missing_network() -> Iterator[None]:
    """Replace NotFound of the network service with Nova's message."""
    try:
        yield
    except errors.NotFound:
        raise errors.NotFound("Network not found") from None


def _empty(key: str) -> Callable[[], Response]:
    return lambda: json({key: []})


def _absent(message: str) -> Callable[..., Response]:
    def handler(key: str = "") -> Response:
        raise errors.NotFound(message.format(key))

    return handler


def _absent_group(key: str) -> Response:
    try:
        UUID(key)
    except ValueError:
        raise errors.BadRequest("Security group id should be uuid") from None
    raise errors.NotFound(f"Security group {key} not found.")


def _exhausted(message: str) -> Callable[[], Response]:
    def handler() -> Response:
        raise errors.QuotaExceeded(message)

    return handler


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
