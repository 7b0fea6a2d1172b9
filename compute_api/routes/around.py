"""Routes around servers: limits, quotas, zones, interfaces, what happened, and the lists that are always empty."""

from typing import Any

from flask import Response, request
from sqlalchemy import select

from app import errors
from app.web.bodies import json_body
from app.web.context import caller, clock, database
from app.web.microversion import v
from app.web.policy import enforce, require
from app.web.responses import json
from compute_api import hosts, quotas, servers
from compute_api.models import ServerAction
from compute_api.routes.blueprint import compute
from compute_api.routes.context import transaction, version
from compute_api.views.servers import micro
from network_api import ports

NETWORK_PROXY_UNTIL, FILES_UNTIL, IMAGE_META_UNTIL = v("2.35"), v("2.56"), v("2.38")


@compute.get("/extensions")
@require("os_compute_api:extensions")
def list_extensions() -> Response:
    return json({"extensions": []})


@compute.get("/limits")
@require("os_compute_api:limits")
def show_limits() -> Response:
    project = request.args.get("tenant_id") or caller().project
    if project != caller().project_id:
        enforce("os_compute_api:limits:other_project")
    with database().reading() as session:
        limit = quotas.limits(session, project)
        used = quotas.usage(session, project)
    absolute: dict[str, int] = {
        "maxTotalInstances": limit["instances"],
        "maxTotalCores": limit["cores"],
        "maxTotalRAMSize": limit["ram"],
        "maxTotalKeypairs": limit["key_pairs"],
        "maxServerMeta": limit["metadata_items"],
        "maxServerGroups": limit["server_groups"],
        "maxServerGroupMembers": limit["server_group_members"],
        "totalInstancesUsed": used["instances"],
        "totalCoresUsed": used["cores"],
        "totalRAMUsed": used["ram"],
        "totalServerGroupsUsed": 0,
    }
    if version() <= IMAGE_META_UNTIL:
        absolute["maxImageMeta"] = limit["metadata_items"]
    if version() <= FILES_UNTIL:
        absolute |= {"maxPersonality": 0, "maxPersonalitySize": 0}
    if version() <= NETWORK_PROXY_UNTIL:
        absolute |= {
            "maxTotalFloatingIps": 0,
            "maxSecurityGroups": 0,
            "maxSecurityGroupRules": 0,
            "totalFloatingIpsUsed": 0,
            "totalSecurityGroupsUsed": 0,
        }
    return json({"limits": {"rate": [], "absolute": absolute}})


@compute.get("/os-quota-sets/<project_id>")
@require("os_compute_api:os-quota-sets:show")
def show_quota(project_id: str) -> Response:
    enforce("os_compute_api:os-quota-sets:show", {"project_id": project_id})
    with database().reading() as session:
        return json({"quota_set": {"id": project_id, **_shown(quotas.limits(session, project_id))}})


@compute.get("/os-quota-sets/<project_id>/detail")
@require("os_compute_api:os-quota-sets:detail")
def show_quota_detail(project_id: str) -> Response:
    enforce("os_compute_api:os-quota-sets:detail", {"project_id": project_id})
    with database().reading() as session:
        limits = _shown(quotas.limits(session, project_id))
        used = quotas.usage(session, project_id)
    detail = {name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0} for name, limit in limits.items()}
    return json({"quota_set": {"id": project_id, **detail}})


@compute.get("/os-quota-sets/<project_id>/defaults")
@require("os_compute_api:os-quota-sets:defaults")
def show_quota_defaults(project_id: str) -> Response:
    return json({"quota_set": {"id": project_id, **_shown(quotas.DEFAULTS)}})


@compute.put("/os-quota-sets/<project_id>")
@require("os_compute_api:os-quota-sets:update")
def update_quota(project_id: str) -> Response:
    body = json_body()
    asked = body.get("quota_set") if isinstance(body, dict) else None
    if not isinstance(asked, dict):
        raise errors.BadRequest("Invalid input for field/attribute body. 'quota_set' is a required property")
    wanted: dict[str, int] = {}
    for name, value in asked.items():
        if name in ("tenant_id", "force"):
            continue
        if name not in _shown(quotas.DEFAULTS):
            raise errors.BadRequest(f"Additional properties are not allowed ('{name}' was unexpected)")
        try:
            wanted[name] = int(value)
        except (TypeError, ValueError):
            raise errors.BadRequest(
                f"Invalid input for field/attribute {name}. Value: {value}. It is no integer."
            ) from None
        if wanted[name] < -1:
            raise errors.BadRequest(f"Invalid input for field/attribute {name}. Value: {value}. It is -1 or more.")
    with transaction() as session:
        quotas.set_limits(session, project_id, wanted)
        session.flush()
        return json({"quota_set": _shown(quotas.limits(session, project_id))})


@compute.delete("/os-quota-sets/<project_id>")
@require("os_compute_api:os-quota-sets:delete")
def delete_quota(project_id: str) -> Response:
    with transaction() as session:
        quotas.reset(session, project_id)
    return Response(status=202)


def _shown(limits: dict[str, int]) -> dict[str, int]:
    hidden: set[str] = set()
    if version() > NETWORK_PROXY_UNTIL:
        hidden |= {"fixed_ips", "floating_ips", "security_groups", "security_group_rules"}
    if version() > FILES_UNTIL:
        hidden |= {"injected_files", "injected_file_content_bytes", "injected_file_path_bytes"}
    return {name: limit for name, limit in limits.items() if name not in hidden}


@compute.get("/os-availability-zone")
@require("os_compute_api:os-availability-zone:list")
def list_zones() -> Response:
    with database().reading() as session:
        known = hosts.listed(session)
    now = clock().now()
    zones = sorted({host.zone for host in known})
    available = {host.zone for host in known if hosts.is_up(host, now) and not host.disabled}
    shown = [{"zoneName": zone, "zoneState": {"available": zone in available}, "hosts": None} for zone in zones]
    return json({"availabilityZoneInfo": shown})


@compute.get("/os-availability-zone/detail")
@require("os_compute_api:os-availability-zone:detail")
def list_zones_detail() -> Response:
    with database().reading() as session:
        known = hosts.listed(session)
    now = clock().now()
    zones: dict[str, dict[str, Any]] = {}
    for host in known:
        service = {
            "available": not host.disabled,
            "active": hosts.is_up(host, now),
            "updated_at": micro(host.last_seen),
        }
        zones.setdefault(host.zone, {})[host.name] = {"nova-compute": service}
    shown = [
        {
            "zoneName": zone,
            "zoneState": {"available": any(one["nova-compute"]["active"] for one in members.values())},
            "hosts": members,
        }
        for zone, members in sorted(zones.items())
    ]
    return json({"availabilityZoneInfo": shown})


@compute.get("/servers/<server_id>/os-security-groups")
@require("os_compute_api:os-security-groups:list")
def list_security_groups(server_id: str) -> Response:
    with database().reading() as session:
        servers.find(session, caller(), server_id)
    return json({"security_groups": []})


@compute.get("/servers/<server_id>/os-volume_attachments")
@require("os_compute_api:os-volumes-attachments:index")
def list_volume_attachments(server_id: str) -> Response:
    with database().reading() as session:
        servers.find(session, caller(), server_id)
    return json({"volumeAttachments": []})


@compute.get("/servers/<server_id>/os-interface")
@require("os_compute_api:os-attach-interfaces:list")
def list_interfaces(server_id: str) -> Response:
    return json({"interfaceAttachments": _interfaces(server_id)})


@compute.get("/servers/<server_id>/os-interface/<port_id>")
@require("os_compute_api:os-attach-interfaces:show")
def show_interface(server_id: str, port_id: str) -> Response:
    for interface in _interfaces(server_id):
        if interface["port_id"] == port_id:
            return json({"interfaceAttachment": interface})
    raise errors.NotFound(f"Port id {port_id} could not be found.")


def _interfaces(server_id: str) -> list[dict[str, Any]]:
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
        nics = ports.nics_of(session, [server.id]).get(server.id, ())
    state = "ACTIVE" if server.power_state == 1 else "DOWN"
    return [
        {
            "port_id": nic.port_id,
            "net_id": nic.network_id,
            "mac_addr": nic.mac,
            "port_state": state,
            "fixed_ips": [
                {"subnet_id": nic.subnet_id, "ip_address": address.split("/")[0]} for address in nic.addresses
            ],
            **({"tag": None} if version() >= v("2.70") else {}),
        }
        for nic in nics
    ]


@compute.get("/servers/<server_id>/os-instance-actions")
@require("os_compute_api:os-instance-actions:list")
def list_instance_actions(server_id: str) -> Response:
    with database().reading() as session:
        server = servers.find(session, caller(), server_id, deleted=version() >= v("2.21"))
        query = select(ServerAction).where(ServerAction.server_id == server.id).order_by(ServerAction.id.desc())
        found = list(session.scalars(query))
    return json({"instanceActions": [_action(action) for action in found]})


def _action(action: ServerAction) -> dict[str, Any]:
    body = {
        "action": action.action,
        "instance_uuid": action.server_id,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": action.project_id,
        "start_time": micro(action.started_at),
        "message": "Error" if action.message else None,
    }
    if version() >= v("2.58"):
        body["updated_at"] = micro(action.updated_at)
    return body


@compute.get("/servers/<server_id>/os-instance-actions/<request_id>")
@require("os_compute_api:os-instance-actions:show")
def show_instance_action(server_id: str, request_id: str) -> Response:
    with database().reading() as session:
        server = servers.find(session, caller(), server_id, deleted=version() >= v("2.21"))
        query = select(ServerAction).where(ServerAction.server_id == server.id, ServerAction.request_id == request_id)
        action = session.scalar(query)
    if action is None:
        raise errors.NotFound(f"Action for request_id {request_id} on instance {server_id} not found")
    event: dict[str, Any] = {
        "event": f"compute_{action.action}",
        "start_time": micro(action.started_at),
        "finish_time": micro(action.finished_at),
        "result": None if action.finished_at is None else "Error" if action.message else "Success",
    }
    if caller().is_admin:
        event["traceback"] = None
    if version() >= v("2.62"):
        event["hostId"] = servers.host_id(server)
        if caller().is_admin:
            event["host"] = action.host
    if version() >= v("2.84"):
        event["details"] = action.message
    return json({"instanceAction": {**_action(action), "events": [event]}})
