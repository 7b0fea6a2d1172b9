"""Route of limits: the project's quotas and usage."""

from flask import Response, request

from app.web.context import caller, database
from app.web.microversion import v
from app.web.policy import enforce, require
from app.web.responses import json
from compute_api import quotas
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import version
from compute_api.scheduler import server_groups

NETWORK_PROXY_UNTIL, FILES_UNTIL, IMAGE_META_UNTIL = v("2.35"), v("2.56"), v("2.38")


@compute.get("/limits")
@require("os_compute_api:limits")
def show_limits() -> Response:
    list_params.check_known("tenant_id", "reserved")
    project = request.args.get("tenant_id") or caller().project
    if project != caller().project_id:
        enforce("os_compute_api:limits:other_project")
    with database().reading() as session:
        limit = quotas.limits(session, project)
        used = quotas.usage(session, project)
        groups = server_groups.count(session, project)
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
        "totalServerGroupsUsed": groups,
    }
    if version() <= IMAGE_META_UNTIL:
        absolute["maxImageMeta"] = limit["metadata_items"]
    if version() <= FILES_UNTIL:
        absolute |= {
            "maxPersonality": limit["injected_files"],
            "maxPersonalitySize": limit["injected_file_content_bytes"],
        }
    if version() <= NETWORK_PROXY_UNTIL:
        absolute |= {
            "maxTotalFloatingIps": 0,
            "maxSecurityGroups": 0,
            "maxSecurityGroupRules": 0,
            "totalFloatingIpsUsed": 0,
            "totalSecurityGroupsUsed": 0,
        }
    return json({"limits": {"rate": [], "absolute": absolute}})
