"""Routes of registered limits and limits."""

from http import HTTPStatus

from flask import Blueprint, Response, request
from sqlalchemy import false, select
from sqlalchemy.orm import Session

from app.web.context import caller, clock, database
from app.web.policy import is_allowed, require
from app.web.responses import empty, json
from identity_api.directory import limits
from identity_api.listing import list_page
from identity_api.models import Limit, RegisteredLimit
from identity_api.routes.base import targets
from identity_api.routes.base.bodies import json_object, parse_body, parse_member
from identity_api.routes.base.policy import guard
from identity_api.schemas.limits import LimitChange, NewLimits, NewRegisteredLimits, RegisteredLimitChange
from identity_api.views import limits as views
from identity_api.views.common import JsonObject, collection

blueprint = Blueprint("identity_limits", __name__)
RESOURCE_FILTERS = {
    "service_id": RegisteredLimit.service_id,
    "region_id": RegisteredLimit.region_id,
    "resource_name": RegisteredLimit.resource_name,
}


@blueprint.get("/registered_limits")
@require("identity:list_registered_limits")
def registered_limits() -> Response:
    with database().reading() as session:
        page = list_page(
            session,
            select(RegisteredLimit),
            request.args,
            sort_key=RegisteredLimit.created_at,
            id_column=RegisteredLimit.id,
            filters=RESOURCE_FILTERS,
        )
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
        found = limits.find_registered(session, registered_limit_id)
        return json({"registered_limit": views.registered(found)})


@blueprint.patch("/registered_limits/<registered_limit_id>")
@guard("identity:update_registered_limit")
def update_registered_limit(registered_limit_id: str) -> Response:
    body = parse_member(RegisteredLimitChange, "registered_limit")
    with database().transaction() as session:
        found = limits.find_registered(session, registered_limit_id)
        limits.change_registered(session, found, body.model_dump(exclude_unset=True))
    return json({"registered_limit": views.registered(found)})


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
    query = select(Limit).join(RegisteredLimit, RegisteredLimit.id == Limit.registered_limit_id)
    if not is_allowed("identity:get_limit", {}):
        me = caller()
        own = Limit.project_id == me.project_id if me.project_id else Limit.domain_id == me.domain_id
        query = query.where(own if me.project_id or me.domain_id else false())
    with database().reading() as session:
        page = list_page(
            session,
            query,
            request.args,
            sort_key=Limit.created_at,
            id_column=Limit.id,
            filters={**RESOURCE_FILTERS, "project_id": Limit.project_id, "domain_id": Limit.domain_id},
        )
        return json(collection("limits", [_render(session, row) for row in page.rows], page.next_marker))


@blueprint.post("/limits")
@guard("identity:create_limits")
def create() -> Response:
    body = parse_body(NewLimits, json_object())
    with database().transaction() as session:
        now = clock().now()
        created = [limits.create(session, now, **spec.model_dump()) for spec in body.limits]
        rendered = [_render(session, limit) for limit in created]
    return json(collection("limits", rendered), HTTPStatus.CREATED)


@blueprint.get("/limits/<limit_id>")
@guard("identity:get_limit", targets.limit)
def show(limit_id: str) -> Response:
    with database().reading() as session:
        return json({"limit": _render(session, limits.find(session, limit_id))})


@blueprint.patch("/limits/<limit_id>")
@guard("identity:update_limit")
def update(limit_id: str) -> Response:
    body = parse_member(LimitChange, "limit")
    with database().transaction() as session:
        found = limits.find(session, limit_id)
        for name, value in body.model_dump(exclude_unset=True).items():
            setattr(found, name, value)
        rendered = _render(session, found)
    return json({"limit": rendered})


@blueprint.delete("/limits/<limit_id>")
@guard("identity:delete_limit")
def delete(limit_id: str) -> Response:
    with database().transaction() as session:
        session.delete(limits.find(session, limit_id))
    return empty()


def _render(session: Session, limit: Limit) -> JsonObject:
    return views.limit(limit, session.get_one(RegisteredLimit, limit.registered_limit_id))
