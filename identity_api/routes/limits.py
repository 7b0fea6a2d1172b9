"""Routes of registered limits and limits."""

from http import HTTPStatus

from flask import Blueprint, Response, request

from app.web.context import caller, clock, database
from app.web.policy import is_allowed, require
from app.web.responses import empty, json
from identity_api.directory import limits
from identity_api.routes.base import targets
from identity_api.routes.base.bodies import json_object, parse_body, parse_member
from identity_api.routes.base.policy import guard
from identity_api.schemas.limits import LimitChange, NewLimits, NewRegisteredLimits, RegisteredLimitChange
from identity_api.views import limits as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_limits", __name__)


@blueprint.get("/registered_limits")
@require("identity:list_registered_limits")
def registered_limits() -> Response:
    with database().reading() as session:
        page = limits.list_registered(session, request.args)
        return json(collection("registered_limits", [views.registered(row) for row in page.rows], page.next_marker))


@blueprint.post("/registered_limits")
@guard("identity:create_registered_limits")
def register() -> Response:
    body = parse_body(NewRegisteredLimits, json_object())
    with database().transaction() as session:
        now = clock().now()
        created = [limits.register(session, now, **spec.model_dump()) for spec in body.registered_limits]
    return json(collection("registered_limits", [views.registered(limit) for limit in created]), HTTPStatus.CREATED)


@blueprint.get("/registered_limits/<registered_limit_id>")
@require("identity:get_registered_limit")
def registered_limit(registered_limit_id: str) -> Response:
    with database().reading() as session:
        limit = limits.find_registered(session, registered_limit_id)
        return json({"registered_limit": views.registered(limit)})


@blueprint.patch("/registered_limits/<registered_limit_id>")
@guard("identity:update_registered_limit")
def update_registered_limit(registered_limit_id: str) -> Response:
    body = parse_member(RegisteredLimitChange, "registered_limit")
    with database().transaction() as session:
        limit = limits.find_registered(session, registered_limit_id)
        limits.change_registered(session, limit, body.model_dump(exclude_unset=True))
    return json({"registered_limit": views.registered(limit)})


@blueprint.delete("/registered_limits/<registered_limit_id>")
@guard("identity:delete_registered_limit")
def delete_registered_limit(registered_limit_id: str) -> Response:
    with database().transaction() as session:
        limits.remove_registered(session, limits.find_registered(session, registered_limit_id))
    return empty()


@blueprint.get("/limits/model")
@require("identity:get_limit_model")
def model() -> Response:
    description = "Limit enforcement and validation does not take project hierarchy into consideration."
    return json({"model": {"name": "flat", "description": description}})


@blueprint.get("/limits")
@require("identity:list_limits")
def list_all() -> Response:
    """List the limits of the caller's project or domain; all limits if policy allows."""
    me = caller()
    with database().reading() as session:
        if is_allowed("identity:get_limit", {}):
            page = limits.list_limits(session, request.args)
        else:
            page = limits.list_own_limits(session, request.args, me.project_id, me.domain_id)
        rendered = [views.limit(*pair) for pair in limits.with_registered(session, page.rows)]
    return json(collection("limits", rendered, page.next_marker))


@blueprint.post("/limits")
@guard("identity:create_limits")
def create() -> Response:
    body = parse_body(NewLimits, json_object())
    with database().transaction() as session:
        now = clock().now()
        created = [limits.create(session, now, **spec.model_dump()) for spec in body.limits]
        rendered = [views.limit(*pair) for pair in limits.with_registered(session, created)]
    return json(collection("limits", rendered), HTTPStatus.CREATED)


@blueprint.get("/limits/<limit_id>")
@guard("identity:get_limit", targets.limit)
def show(limit_id: str) -> Response:
    with database().reading() as session:
        ((limit, registered),) = limits.with_registered(session, [limits.find(session, limit_id)])
        return json({"limit": views.limit(limit, registered)})


@blueprint.patch("/limits/<limit_id>")
@guard("identity:update_limit")
def update(limit_id: str) -> Response:
    body = parse_member(LimitChange, "limit")
    with database().transaction() as session:
        ((limit, registered),) = limits.with_registered(session, [limits.find(session, limit_id)])
        limits.change(limit, body.model_dump(exclude_unset=True))
        rendered = views.limit(limit, registered)
    return json({"limit": rendered})


@blueprint.delete("/limits/<limit_id>")
@guard("identity:delete_limit")
def delete(limit_id: str) -> Response:
    with database().transaction() as session:
        limits.remove(session, limits.find(session, limit_id))
    return empty()
