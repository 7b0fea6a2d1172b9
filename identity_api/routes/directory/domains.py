"""Routes of domains."""

from http import HTTPStatus

from flask import Blueprint, Response, request

from app.web.context import clock, database
from app.web.policy import is_allowed
from app.web.responses import empty, json
from identity_api.directory import projects
from identity_api.routes.base import targets
from identity_api.routes.base.bodies import parse_member
from identity_api.routes.base.policy import guard
from identity_api.schemas.projects import DomainChange, NewDomain
from identity_api.views import projects as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_domains", __name__)


@blueprint.get("/domains")
@guard("identity:list_domains", targets.token_domain)
def list_all() -> Response:
    own = None if is_allowed("identity:list_domains", {}) else targets.requested_domain_id()
    with database().reading() as session:
        page = projects.list_domains(session, request.args, own)
        return json(collection("domains", [views.domain(domain) for domain in page.rows], page.next_marker))


@blueprint.post("/domains")
@guard("identity:create_domain")
def create() -> Response:
    body = parse_member(NewDomain, "domain")
    with database().transaction() as session:
        domain = projects.create(
            session,
            clock().now(),
            name=body.name,
            domain_id=None,
            is_domain=True,
            description=body.description or "",
            enabled=body.enabled,
            tags=body.tags,
            options=body.options,
            extra=body.extra(),
        )
    return json({"domain": views.domain(domain)}, HTTPStatus.CREATED)


@blueprint.get("/domains/<domain_id>")
@guard("identity:get_domain", targets.domain)
def show(domain_id: str) -> Response:
    with database().reading() as session:
        return json({"domain": views.domain(projects.find_domain(session, domain_id))})


@blueprint.patch("/domains/<domain_id>")
@guard("identity:update_domain", targets.domain)
def update(domain_id: str) -> Response:
    body = parse_member(DomainChange, "domain")
    with database().transaction() as session:
        domain = projects.find_domain(session, domain_id)
        changes = body.provided("name", "description", "enabled", "tags", "options")
        if "description" in changes:
            changes["description"] = changes["description"] or ""
        projects.change(session, domain, changes, body.extra())
    return json({"domain": views.domain(domain)})


@blueprint.delete("/domains/<domain_id>")
@guard("identity:delete_domain", targets.domain)
def delete(domain_id: str) -> Response:
    with database().transaction() as session:
        projects.remove_domain(session, projects.find_domain(session, domain_id))
    return empty()
