"""Routes of roles and implied roles."""

from http import HTTPStatus

from flask import Blueprint, Response, request

from app.core import errors
from app.web.context import clock, database
from app.web.links import url
from app.web.responses import empty, json
from identity_api.directory import roles
from identity_api.routes.base import targets
from identity_api.routes.base.bodies import parse_member
from identity_api.routes.base.policy import guard
from identity_api.schemas.roles import NewRole, RoleChange
from identity_api.views import roles as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_roles", __name__)
V3 = "/identity/v3"


@blueprint.get("/roles")
@guard("identity:list_roles", targets.requested_role_domain, domain_role="identity:list_domain_roles")
def list_all() -> Response:
    with database().reading() as session:
        page = roles.list_roles(session, request.args)
        return json(collection("roles", [views.role(role) for role in page.rows], page.next_marker))


@blueprint.post("/roles")
@guard("identity:create_role", targets.new_role, domain_role="identity:create_domain_role")
def create() -> Response:
    body = parse_member(NewRole, "role")
    with database().transaction() as session:
        role = roles.create(
            session,
            clock().now(),
            name=body.name,
            domain_id=body.domain_id,
            description=body.description,
            options=body.options,
            extra=body.extra(),
        )
    return json({"role": views.role(role)}, HTTPStatus.CREATED)


@blueprint.get("/roles/<role_id>")
@guard("identity:get_role", targets.role, domain_role="identity:get_domain_role")
def show(role_id: str) -> Response:
    with database().reading() as session:
        return json({"role": views.role(roles.find(session, role_id))})


@blueprint.patch("/roles/<role_id>")
@guard("identity:update_role", targets.role, domain_role="identity:update_domain_role")
def update(role_id: str) -> Response:
    body = parse_member(RoleChange, "role")
    with database().transaction() as session:
        role = roles.find(session, role_id)
        if "domain_id" in body.model_fields_set and (body.domain_id or "") != role.domain_id:
            raise errors.BadRequest("Cannot change role's domain_id.")
        roles.change(session, role, body.provided("name", "description", "options"), body.extra())
    return json({"role": views.role(role)})


@blueprint.delete("/roles/<role_id>")
@guard("identity:delete_role", targets.role, domain_role="identity:delete_domain_role")
def delete(role_id: str) -> Response:
    with database().transaction() as session:
        roles.remove(session, roles.find(session, role_id))
    return empty()


@blueprint.get("/roles/<role_id>/implies")
@guard("identity:list_implied_roles", targets.role)
def list_implied(role_id: str) -> Response:
    with database().reading() as session:
        prior = roles.find(session, role_id)
        implied = roles.load_implications(session, role_id).get(role_id, [])
        rendered = views.inferences(prior, implied)
    return json({"role_inference": rendered, "links": {"self": url(f"{V3}/roles/{role_id}/implies")}})


@blueprint.put("/roles/<role_id>/implies/<implied_id>")
@guard("identity:create_implied_role", targets.role)
def imply(role_id: str, implied_id: str) -> Response:
    with database().transaction() as session:
        prior, implied = roles.find_pair(session, role_id, implied_id)
        roles.add_implication(session, prior, implied)
    return json(views.inference(prior, implied), HTTPStatus.CREATED)


@blueprint.get("/roles/<role_id>/implies/<implied_id>")
@guard("identity:get_implied_role", targets.role)
def show_implied(role_id: str, implied_id: str) -> Response:
    """Handles GET, and HEAD with 204 as in Keystone."""
    with database().reading() as session:
        prior, implied = roles.find_pair(session, role_id, implied_id)
        roles.check_implication(session, prior, implied)
    return empty() if request.method == "HEAD" else json(views.inference(prior, implied))


@blueprint.delete("/roles/<role_id>/implies/<implied_id>")
@guard("identity:delete_implied_role", targets.role)
def delete_implied(role_id: str, implied_id: str) -> Response:
    with database().transaction() as session:
        roles.remove_implication(session, *roles.find_pair(session, role_id, implied_id))
    return empty()


@blueprint.get("/role_inferences")
@guard("identity:list_role_inference_rules")
def inferences() -> Response:
    with database().reading() as session:
        rendered = [views.inferences(prior, implied) for prior, implied in roles.list_inferences(session)]
    return json(collection("role_inferences", rendered))
