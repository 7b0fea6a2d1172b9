"""/v2.0/quotas: limits per project. Unsupported resources have the quota 0."""

from flask import Blueprint, Response

from app.web.bodies import json_body, parse
from app.web.context import database
from app.web.policy import require
from app.web.responses import empty, json
from network_api import quotas
from network_api.routes.params.owners import enforce_on
from network_api.schemas.quotas import ChangeQuota

blueprint = Blueprint("network_quotas", __name__)

UNSUPPORTED = dict.fromkeys(("router", "floatingip", "security_group", "security_group_rule", "rbac_policy"), 0)


@blueprint.get("/quotas")
@require("update_quota")
def index() -> Response:
    """List the projects whose quotas differ from the defaults."""
    with database().reading() as session:
        found = [
            {"project_id": project, "tenant_id": project, **quotas.limits(session, project), **UNSUPPORTED}
            for project in quotas.list_customized_projects(session)
        ]
    return json({"quotas": found})


@blueprint.get("/quotas/<project_id>")
@require("get_quota")
def show(project_id: str) -> Response:
    enforce_on("get_quota", project_id)
    with database().reading() as session:
        return json({"quota": {**quotas.limits(session, project_id), **UNSUPPORTED}})


@blueprint.get("/quotas/<project_id>/default")
@require("get_quota")
def defaults(project_id: str) -> Response:
    enforce_on("get_quota", project_id)
    return json({"quota": {**quotas.DEFAULTS, **UNSUPPORTED}})


@blueprint.get("/quotas/<project_id>/details")
@blueprint.get("/quotas/<project_id>/details.json")
@require("get_quota")
def details(project_id: str) -> Response:
    enforce_on("get_quota", project_id)
    with database().reading() as session:
        limits = quotas.limits(session, project_id)
        body = {
            name: {"limit": limit, "used": quotas.count_used(session, project_id, name), "reserved": 0}
            for name, limit in limits.items()
        }
    body |= {name: {"limit": 0, "used": 0, "reserved": 0} for name in UNSUPPORTED}
    return json({"quota": body})


@blueprint.put("/quotas/<project_id>")
@require("update_quota")
def change(project_id: str) -> Response:
    body = parse(ChangeQuota, json_body()).quota
    with database().transaction() as session:
        quotas.set_limits(session, project_id, body.limits(), check_usage=body.check_limit)
        limits = quotas.limits(session, project_id)
    return json({"quota": {**limits, **UNSUPPORTED}})


@blueprint.delete("/quotas/<project_id>")
@require("delete_quota")
def delete(project_id: str) -> Response:
    """Reset the project's quotas to the defaults."""
    with database().transaction() as session:
        quotas.reset(session, project_id)
    return empty()
