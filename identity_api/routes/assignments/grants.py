"""Routes of grants: roles of users and groups on projects, domains and the system."""

from flask import Blueprint, Response, request

from app.core import errors
from app.web.context import database
from app.web.responses import empty, json
from identity_api.assignments import grants
from identity_api.assignments.grants import Grant
from identity_api.directory import application_credentials, roles
from identity_api.routes.base import targets
from identity_api.routes.base.policy import guard
from identity_api.views import roles as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_grants", __name__)


def _grant_from_path() -> Grant:
    """Return the grant that the path of this request identifies."""
    path = request.view_args or {}
    actor = "user" if "user_id" in path else "group"
    target = "project" if "project_id" in path else "domain" if "domain_id" in path else "system"
    return Grant(
        actor_kind=actor,
        actor_id=path[f"{actor}_id"],
        target_kind=target,
        target_id=path.get(f"{target}_id", "system"),
        inherited="/OS-INHERIT/" in request.path,
    )


def _list(**path: str) -> Response:  # noqa: ARG001
    with database().reading() as session:
        grant = _grant_from_path()
        grants.check_actor_and_target(session, grant)
        return json(collection("roles", [views.role(role) for role in grants.list_roles(session, grant)]))


def _check(role_id: str, **path: str) -> Response:  # noqa: ARG001
    with database().reading() as session:
        grant = _grant_from_path()
        roles.find(session, role_id)
        grants.check_actor_and_target(session, grant)
        if not grants.has_role(session, grant, role_id):
            raise errors.NotFound(
                f"Could not find role assignment with role: {role_id}, user or group: {grant.actor_id}, project, "
                f"domain, or system: {grant.target_id}."
            )
    return empty()


def _assign(role_id: str, **path: str) -> Response:  # noqa: ARG001
    with database().transaction() as session:
        grant = _grant_from_path()
        role = roles.find(session, role_id)
        grants.check_actor_and_target(session, grant)
        grants.assign_role(session, grant, role)
    return empty()


def _revoke(role_id: str, **path: str) -> Response:  # noqa: ARG001
    with database().transaction() as session:
        grant = _grant_from_path()
        roles.find(session, role_id)
        application_credentials.remove_stale(session, grants.revoke_role(session, grant, role_id))
    return empty()


def _add_routes(prefix: str, suffix: str, check: str, list_: str, create: str, revoke: str) -> None:
    """Add the routes of one kind of grant."""
    name = prefix.replace("/", "_").replace("<", "").replace(">", "")
    one = f"{prefix}/roles/<role_id>{suffix}"
    for method, rule, view in (("GET", check, _check), ("PUT", create, _assign), ("DELETE", revoke, _revoke)):
        guarded = guard(f"identity:{rule}", targets.grant)(view)
        blueprint.add_url_rule(one, f"{view.__name__}{name}{len(suffix)}", guarded, methods=[method])
    listing = guard(f"identity:{list_}", targets.grant)(_list)
    blueprint.add_url_rule(f"{prefix}/roles{suffix}", f"_list{name}{len(suffix)}", listing, methods=["GET"])


for _actor in ("users/<user_id>", "groups/<group_id>"):
    for _target in ("projects/<project_id>", "domains/<domain_id>"):
        _rules = ("check_grant", "list_grants", "create_grant", "revoke_grant")
        _add_routes(f"/{_target}/{_actor}", "", *_rules)
        _add_routes(f"/OS-INHERIT/{_target}/{_actor}", "/inherited_to_projects", *_rules)
    _kind = _actor[:4] if _actor.startswith("user") else _actor[:5]
    _add_routes(
        f"/system/{_actor}",
        "",
        f"check_system_grant_for_{_kind}",
        f"list_system_grants_for_{_kind}",
        f"create_system_grant_for_{_kind}",
        f"revoke_system_grant_for_{_kind}",
    )
