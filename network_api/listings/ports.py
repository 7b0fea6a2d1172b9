"""List query of ports: columns, filters, sort keys."""

from collections.abc import Sequence

from sqlalchemy import Text, and_, cast, false, func, or_, select
from sqlalchemy.sql import ColumnElement

from network_api.errors import InvalidInput, PortNotFound
from network_api.listings import listing
from network_api.listings.subnets import normalize_address
from network_api.resources.ports import COLUMNS, VISIBLE


def _normalize_mac(text: str) -> str:
    return text.lower().replace("-", ":")


def _filter_fixed_ips(values: Sequence[str]) -> ColumnElement[bool]:
    """Filter `ip_address=…`, `subnet_id=…` and `ip_address_substr=…`: OR within a kind, AND between kinds."""
    asked: dict[str, list[ColumnElement[bool]]] = {}
    for value in values:
        name, equals, wanted = value.partition("=")
        if not equals or name not in ("ip_address", "subnet_id", "ip_address_substr"):
            raise InvalidInput(f"'{value}' is not a filter of fixed_ips: ip_address, subnet_id or ip_address_substr.")
        asked.setdefault(name, []).append(_fixed_ip_condition(name, wanted))
    return and_(*(or_(*conditions) for conditions in asked.values()))


def _fixed_ip_condition(name: str, wanted: str) -> ColumnElement[bool]:
    if name == "subnet_id":
        return COLUMNS.subnet_id == wanted
    if name == "ip_address":
        return COLUMNS.ip_address == normalize_address(wanted)
    return func.replace(COLUMNS.ip_address, wanted.lower(), "") != COLUMNS.ip_address


def _match_none(_values: Sequence[str]) -> ColumnElement[bool]:
    return false()


SHOWN_COLUMNS = (
    COLUMNS.id,
    COLUMNS.name,
    COLUMNS.description,
    COLUMNS.project_id,
    COLUMNS.network_id,
    COLUMNS.mac_address,
    COLUMNS.subnet_id,
    COLUMNS.ip_address,
    COLUMNS.admin_state_up,
    COLUMNS.status,
    COLUMNS.device_id,
    COLUMNS.device_owner,
    cast(COLUMNS.allowed_address_pairs, Text).label("allowed_address_pairs"),
    COLUMNS.ipv4_address,
    cast(COLUMNS.tags, Text).label("tags"),
    COLUMNS.created_at,
    COLUMNS.updated_at,
    COLUMNS.revision_number,
    COLUMNS.binding_host,
)
"""The columns of `views.ports.port`, in its order. JSON columns are read as text and copied to the response."""

PORTS = listing.Resource(
    query=select(*SHOWN_COLUMNS),
    key=COLUMNS.id,
    visible=VISIBLE,
    not_found=PortNotFound,
    filters={
        "id": listing.Equal(COLUMNS.id),
        "name": listing.Equal(COLUMNS.name),
        "description": listing.Equal(COLUMNS.description),
        "project_id": listing.Equal(COLUMNS.project_id),
        "tenant_id": listing.Equal(COLUMNS.project_id),
        "network_id": listing.Equal(COLUMNS.network_id),
        "device_id": listing.Equal(COLUMNS.device_id),
        "device_owner": listing.Equal(COLUMNS.device_owner),
        "mac_address": listing.Equal(COLUMNS.mac_address, _normalize_mac),
        "ipv4_address": listing.Equal(COLUMNS.ipv4_address),
        "status": listing.Equal(COLUMNS.status),
        "admin_state_up": listing.boolean_filter(COLUMNS.admin_state_up),
        "binding:host_id": listing.Equal(COLUMNS.binding_host),
        "binding:vnic_type": listing.constant("normal"),
        "port_security_enabled": listing.constant(True),
        "security_groups": _match_none,
        "fixed_ips": _filter_fixed_ips,
        "revision_number": listing.number(COLUMNS.revision_number),
        **listing.tag_filters(COLUMNS.tags),
    },
    sorts={
        "id": COLUMNS.id,
        "name": COLUMNS.name,
        "project_id": COLUMNS.project_id,
        "tenant_id": COLUMNS.project_id,
        "network_id": COLUMNS.network_id,
        "device_id": COLUMNS.device_id,
        "device_owner": COLUMNS.device_owner,
        "mac_address": COLUMNS.mac_address,
        "status": COLUMNS.status,
        "admin_state_up": COLUMNS.admin_state_up,
        "created_at": COLUMNS.created_at,
        "updated_at": COLUMNS.updated_at,
        "revision_number": COLUMNS.revision_number,
    },
)
