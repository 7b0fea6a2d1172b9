"""Views of servers, by microversion and by the caller's rights.

https://docs.openstack.org/api-ref/compute/#show-server-details
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from ipaddress import IPv6Interface
from typing import Any

from app.core.caller import Caller
from app.web.microversion import Version, v
from compute_api import states
from compute_api.models import Server
from compute_api.servers import servers
from compute_api.servers.creation import CreatedServers
from compute_api.states import VmState
from compute_api.views import links
from network_api.resources.ports import Nic

PROGRESS = {"ACTIVE": 100, "BUILD": 0, "REBUILD": 0, "RESIZE": 0, "VERIFY_RESIZE": 100, "MIGRATING": 0}
PINNED_SINCE, GROUPS_SINCE = v("2.96"), v("2.71")
CERTIFICATES_SINCE, TAGS_SINCE, DESCRIPTION_SINCE = v("2.63"), v("2.26"), v("2.19")
LOCKED_SINCE, LOCK_REASON_SINCE, HOST_STATUS_SINCE = v("2.9"), v("2.73"), v("2.16")
FLAVOR_COPY_SINCE, HOSTNAME_SINCE, ATTRIBUTES_SINCE = v("2.47"), v("2.90"), v("2.3")
WHOLE_SINCE, REBUILT_KEY_SINCE, REBUILT_USER_DATA_SINCE = v("2.75"), v("2.54"), v("2.57")

EXTENSION_PREFIXES = ("OS-EXT-", "OS-SRV-USG:", "os-extended-volumes:")
OMITTED_FROM_UPDATES = ("config_drive", "key_name", "security_groups", "host_status")
"""Fields that responses of PUT and rebuild omit below 2.75."""


def created(result: CreatedServers) -> dict[str, Any]:
    """Render the response of POST /servers: the first server and the password, which is returned once."""
    server = result.servers[0]
    return {
        "server": {
            "id": server.id,
            "links": links.of("servers", server.id),
            "OS-DCF:diskConfig": server.disk_config,
            "security_groups": [{"name": "default"}],
            "adminPass": result.admin_pass,
        }
    }


def brief(server_id: str, name: str, base: str) -> dict[str, Any]:
    """Render an entry of GET /servers. `base` is the base URL of links."""
    return {"id": server_id, "name": name, "links": links.under(base, "servers", server_id)}


def show(
    server: Server,
    nics: Sequence[Nic],
    version: Version,
    caller: Caller,
    *,
    single: bool = True,
    host_states: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Render a server with all fields. `single` is false for entries of the detailed list, which have no server groups.

    `host_states` maps hosts to UP, DOWN, UNKNOWN or MAINTENANCE, for admins.
    """
    status = states.status(server.vm_state, server.task_state)
    body: dict[str, Any] = {
        "id": server.id,
        "name": server.name,
        "status": status,
        "tenant_id": server.project_id,
        "user_id": server.user_id,
        "metadata": server.metadata_,
        "hostId": servers.host_id(server),
        "image": {"id": server.image_id, "links": links.bookmark("images", server.image_id)},
        "flavor": flavor_of(server, version),
        "created": format_seconds(server.created_at),
        "updated": format_seconds(server.updated_at),
        "addresses": {} if server.vm_state == VmState.BUILDING else addresses(nics),
        "accessIPv4": server.access_ipv4 or next((nic.ipv4_address for nic in nics if nic.ipv4_address), ""),
        "accessIPv6": server.access_ipv6,
        "links": links.of("servers", server.id),
        "OS-DCF:diskConfig": server.disk_config,
        "OS-EXT-AZ:availability_zone": server.availability_zone,
        "config_drive": "True" if server.config_drive else "",
        "key_name": server.key.get("name"),
        "OS-SRV-USG:launched_at": format_microseconds(server.launched_at),
        "OS-SRV-USG:terminated_at": format_microseconds(server.terminated_at),
        "security_groups": [{"name": "default"}],
        "OS-EXT-STS:task_state": server.task_state,
        "OS-EXT-STS:vm_state": server.vm_state,
        "OS-EXT-STS:power_state": server.power_state,
        "os-extended-volumes:volumes_attached": [],
    }
    if status in PROGRESS:
        body["progress"] = PROGRESS[status]
    if status in ("ERROR", "DELETED") and server.fault:
        body["fault"] = fault(server, caller)
    if caller.is_admin:
        _admin(body, server, version)
        if version >= HOST_STATUS_SINCE:
            body["host_status"] = (host_states or {}).get(server.host, "UNKNOWN") if server.host else ""
    elif version >= HOSTNAME_SINCE:
        body["OS-EXT-SRV-ATTR:hostname"] = server.hostname
    if version >= LOCKED_SINCE:
        body["locked"] = server.locked
    if version >= DESCRIPTION_SINCE:
        body["description"] = server.description
    if version >= TAGS_SINCE:
        body["tags"] = server.tags
    if version >= CERTIFICATES_SINCE:
        body["trusted_image_certificates"] = None
    if version >= GROUPS_SINCE and single:
        body["server_groups"] = [server.group_id] if server.group_id else []
    if version >= LOCK_REASON_SINCE:
        body["locked_reason"] = server.locked_reason
    if version >= PINNED_SINCE:
        body["pinned_availability_zone"] = server.pinned_zone
    return body


def _admin(body: dict[str, Any], server: Server, version: Version) -> None:
    body["OS-EXT-SRV-ATTR:host"] = server.host
    body["OS-EXT-SRV-ATTR:hypervisor_hostname"] = server.host
    body["OS-EXT-SRV-ATTR:instance_name"] = f"instance-{server.seq:08x}"
    if version >= ATTRIBUTES_SINCE:
        body["OS-EXT-SRV-ATTR:reservation_id"] = server.reservation_id
        body["OS-EXT-SRV-ATTR:launch_index"] = server.launch_index
        body["OS-EXT-SRV-ATTR:hostname"] = server.hostname
        body["OS-EXT-SRV-ATTR:kernel_id"] = ""
        body["OS-EXT-SRV-ATTR:ramdisk_id"] = ""
        body["OS-EXT-SRV-ATTR:root_device_name"] = "/dev/vda"
        body["OS-EXT-SRV-ATTR:user_data"] = server.user_data


def updated(server: Server, nics: Sequence[Nic], version: Version, caller: Caller) -> dict[str, Any]:
    """Render the response of PUT /servers/{id}: from 2.75 on all fields, below without the fields of extensions."""
    body = show(server, nics, version, caller)
    if version >= WHOLE_SINCE:
        return body
    body = {
        name: value
        for name, value in body.items()
        if not name.startswith(EXTENSION_PREFIXES) and name not in OMITTED_FROM_UPDATES
    }
    body["addresses"] = {
        label: [{"version": address["version"], "addr": address["addr"]} for address in addresses_of_label]
        for label, addresses_of_label in body["addresses"].items()
    }
    return body


def rebuilt(
    server: Server, nics: Sequence[Nic], version: Version, caller: Caller, admin_pass: str | None
) -> dict[str, Any]:
    """Render the response of rebuild: as for PUT, with key name, user data and the password, which is returned once."""
    body = updated(server, nics, version, caller)
    if version >= REBUILT_KEY_SINCE:
        body["key_name"] = server.key.get("name")
    if version >= REBUILT_USER_DATA_SINCE:
        body["user_data"] = server.user_data
        body.pop("OS-EXT-SRV-ATTR:user_data", None)
    if admin_pass is not None:
        body["adminPass"] = admin_pass
    return body


def flavor_of(server: Server, version: Version) -> dict[str, Any]:
    """Render the server's flavor: a reference below 2.47, from then on the server's copy of it."""
    if version < FLAVOR_COPY_SINCE:
        return {"id": server.flavor_id, "links": links.bookmark("flavors", server.flavor_id)}
    copy = server.flavor
    shown = {name: copy[name] for name in ("vcpus", "ram", "disk", "ephemeral", "swap", "extra_specs")}
    return {**shown, "original_name": copy["name"]}


def addresses(nics: Sequence[Nic]) -> dict[str, list[dict[str, Any]]]:
    """Render the fixed IPv6 addresses by network name, with MAC addresses."""
    by_network: dict[str, list[dict[str, Any]]] = {}
    for nic in nics:
        for address in nic.addresses:
            by_network.setdefault(nic.network_name, []).append(
                {
                    "version": 6,
                    "addr": str(IPv6Interface(address).ip),
                    "OS-EXT-IPS:type": "fixed",
                    "OS-EXT-IPS-MAC:mac_addr": nic.mac,
                }
            )
    return by_network


def fault(server: Server, caller: Caller) -> dict[str, Any]:
    """Render the fault of a server in ERROR. Details of code 500 are for admins, as in Nova."""
    shown = {name: server.fault[name] for name in ("code", "created", "message")}
    if server.fault.get("details") and (caller.is_admin or server.fault["code"] != 500):
        shown["details"] = server.fault["details"]
    return shown


def format_seconds(time: datetime) -> str:
    """Format a time as 2026-11-21T02:59:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def format_microseconds(time: datetime | None) -> str | None:
    """Format a time as 2026-11-21T02:59:00.000000, without a time zone as in Nova; None stays None."""
    return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%S.%f")
