"""Routes of tokens: log-in, validation, revocation, and the scopes available to the user."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, request

from app.core import errors
from app.http.source_address import source_address
from app.web.authentication import public
from app.web.context import caller, database
from app.web.policy import require
from app.web.responses import empty, json
from identity_api.assignments import effective
from identity_api.listing import parse_flag
from identity_api.routes.base.bodies import json_object, parse_body
from identity_api.routes.base.dependencies import identity
from identity_api.routes.base.policy import guard
from identity_api.schemas.auth import AuthRequest
from identity_api.tokens.context import TokenContext
from identity_api.views import projects as project_views
from identity_api.views import tokens as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_auth", __name__)
ACCESS_RULES = "OpenStack-Identity-Access-Rules"


@blueprint.post("/auth/tokens")
@public
def log_in() -> Response:
    body = parse_body(AuthRequest, json_object())
    token, subject = identity().logins.log_in(body.auth.auth_methods(), body.auth.requested_scope(), source_address())
    return json(_render(subject), HTTPStatus.CREATED, {"X-Subject-Token": token})


def _token_target(path: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG001
    return {"target.token.user_id": _validate_subject_token().auth_context.user.id}


@blueprint.get("/auth/tokens")
@guard("identity:validate_token", _token_target)
def validate() -> Response:
    """Handles GET and HEAD."""
    return json(_render(_validate_subject_token()), headers={"X-Subject-Token": request.headers["X-Subject-Token"]})


@blueprint.delete("/auth/tokens")
@guard("identity:revoke_token", _token_target)
def revoke() -> Response:
    payload = _validate_subject_token().payload
    with database().transaction() as session:
        identity().tokens.revoke(session, payload)
    return empty()


@blueprint.get("/auth/catalog")
@require("identity:get_auth_catalog")
def catalog() -> Response:
    me = caller()
    if not me.roles:
        raise errors.Forbidden("You are not authorized to perform the requested action: identity:get_auth_catalog.")
    return json(collection("catalog", views.catalog(identity().catalog(), me.project_id, me.user_id)))


@blueprint.get("/auth/projects")
@require("identity:get_auth_projects")
def projects() -> Response:
    available = identity().projects_of(caller().user_id)
    return json(collection("projects", [project_views.project(project) for project in available]))


@blueprint.get("/auth/domains")
@require("identity:get_auth_domains")
def domains() -> Response:
    with database().reading() as session:
        available = effective.list_domains(session, caller().user_id)
        return json(collection("domains", [project_views.domain(domain) for domain in available]))


@blueprint.get("/auth/system")
@require("identity:get_auth_system")
def system() -> Response:
    with database().reading() as session:
        granted = bool(effective.find_system_roles(session, caller().user_id))
    return json(collection("system", [{"all": True}] if granted else []))


def _render(subject: TokenContext) -> dict[str, Any]:
    wants_catalog = "nocatalog" not in request.args
    return views.token(subject, identity().catalog() if wants_catalog else None)


def _validate_subject_token() -> TokenContext:
    """Validate the token in X-Subject-Token. Raises NotFound.

    Tokens with access rules are hidden from clients that do not send `OpenStack-Identity-Access-Rules`.
    """
    token = request.headers.get("X-Subject-Token")
    if not token:
        raise errors.NotFound("Could not find token: None.")
    allow_expired = "allow_expired" in request.args and parse_flag(request.args["allow_expired"])
    subject = identity().tokens.validate(token, allow_expired=allow_expired)
    used = subject.auth_context.credential
    if used and used.rules is not None and ACCESS_RULES not in request.headers:
        raise errors.NotFound("Could not find token.")
    return subject
