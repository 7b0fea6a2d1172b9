"""Routes of services, endpoints and regions."""

from http import HTTPStatus
from uuid import uuid4

from flask import Blueprint, Response, request

from app.core import errors
from app.web.context import clock, database
from app.web.responses import empty, json
from identity_api.directory import catalog
from identity_api.routes.base.bodies import parse_member
from identity_api.routes.base.policy import guard
from identity_api.schemas.catalog import (
    EndpointChange,
    NewEndpoint,
    NewRegion,
    NewService,
    RegionChange,
    ServiceChange,
)
from identity_api.views import catalog as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_catalog", __name__)


@blueprint.get("/services")
@guard("identity:list_services")
def services() -> Response:
    with database().reading() as session:
        page = catalog.list_services(session, request.args)
        return json(collection("services", [views.service(row) for row in page.rows], page.next_marker))


@blueprint.post("/services")
@guard("identity:create_service")
def create_service() -> Response:
    body = parse_member(NewService, "service")
    with database().transaction() as session:
        service = catalog.create_service(
            session,
            clock().now(),
            type=body.type,
            name=body.name,
            description=body.description,
            enabled=body.enabled,
            extra=body.extra(),
        )
    return json({"service": views.service(service)}, HTTPStatus.CREATED)


@blueprint.get("/services/<service_id>")
@guard("identity:get_service")
def service(service_id: str) -> Response:
    with database().reading() as session:
        return json({"service": views.service(catalog.find_service(session, service_id))})


@blueprint.patch("/services/<service_id>")
@guard("identity:update_service")
def update_service(service_id: str) -> Response:
    body = parse_member(ServiceChange, "service")
    with database().transaction() as session:
        service = catalog.find_service(session, service_id)
        catalog.change(session, service, body.provided("type", "name", "description", "enabled"), body.extra())
    return json({"service": views.service(service)})


@blueprint.delete("/services/<service_id>")
@guard("identity:delete_service")
def delete_service(service_id: str) -> Response:
    with database().transaction() as session:
        catalog.delete_service(session, service_id)
    return empty()


@blueprint.get("/endpoints")
@guard("identity:list_endpoints")
def endpoints() -> Response:
    with database().reading() as session:
        page = catalog.list_endpoints(session, request.args)
        return json(collection("endpoints", [views.endpoint(row) for row in page.rows], page.next_marker))


@blueprint.post("/endpoints")
@guard("identity:create_endpoint")
def create_endpoint() -> Response:
    body = parse_member(NewEndpoint, "endpoint")
    with database().transaction() as session:
        endpoint = catalog.create_endpoint(
            session,
            clock().now(),
            service_id=body.service_id,
            region_id=body.region_id or catalog.ensure_region(session, body.region),
            interface=body.interface,
            url=body.url,
            enabled=body.enabled,
            extra=body.extra(),
        )
    return json({"endpoint": views.endpoint(endpoint)}, HTTPStatus.CREATED)


@blueprint.get("/endpoints/<endpoint_id>")
@guard("identity:get_endpoint")
def endpoint(endpoint_id: str) -> Response:
    with database().reading() as session:
        return json({"endpoint": views.endpoint(catalog.find_endpoint(session, endpoint_id))})


@blueprint.patch("/endpoints/<endpoint_id>")
@guard("identity:update_endpoint")
def update_endpoint(endpoint_id: str) -> Response:
    body = parse_member(EndpointChange, "endpoint")
    changes = body.provided("interface", "service_id", "url", "enabled", "region_id")
    with database().transaction() as session:
        endpoint = catalog.find_endpoint(session, endpoint_id)
        if "region" in body.model_fields_set and "region_id" not in changes:
            changes["region_id"] = catalog.ensure_region(session, body.region)
        catalog.change_endpoint(session, endpoint, changes, body.extra())
    return json({"endpoint": views.endpoint(endpoint)})


@blueprint.delete("/endpoints/<endpoint_id>")
@guard("identity:delete_endpoint")
def delete_endpoint(endpoint_id: str) -> Response:
    with database().transaction() as session:
        catalog.delete_endpoint(session, catalog.find_endpoint(session, endpoint_id))
    return empty()


@blueprint.get("/regions")
@guard("identity:list_regions")
def regions() -> Response:
    with database().reading() as session:
        page = catalog.list_regions(session, request.args)
        return json(collection("regions", [views.region(row) for row in page.rows], page.next_marker))


@blueprint.post("/regions")
@guard("identity:create_region")
def create_region() -> Response:
    body = parse_member(NewRegion, "region")
    return _create_region(body, body.id or uuid4().hex)


@blueprint.put("/regions/<region_id>")
@guard("identity:create_region")
def create_named_region(region_id: str) -> Response:
    body = parse_member(NewRegion, "region")
    if body.id is not None and body.id != region_id:
        raise errors.BadRequest("Conflicting region IDs specified in the path and in the body.")
    if len(region_id) > 255:
        raise errors.BadRequest("Invalid input for field 'id': it has at most 255 characters.")
    return _create_region(body, region_id)


@blueprint.get("/regions/<region_id>")
@guard("identity:get_region")
def region(region_id: str) -> Response:
    with database().reading() as session:
        return json({"region": views.region(catalog.find_region(session, region_id))})


@blueprint.patch("/regions/<region_id>")
@guard("identity:update_region")
def update_region(region_id: str) -> Response:
    body = parse_member(RegionChange, "region")
    changes = body.provided("description", "parent_region_id")
    if "description" in changes:
        changes["description"] = changes["description"] or ""
    with database().transaction() as session:
        region = catalog.find_region(session, region_id)
        catalog.change_region(session, region, changes, body.extra())
    return json({"region": views.region(region)})


@blueprint.delete("/regions/<region_id>")
@guard("identity:delete_region")
def delete_region(region_id: str) -> Response:
    with database().transaction() as session:
        catalog.delete_region(session, region_id)
    return empty()


def _create_region(body: NewRegion, region_id: str) -> Response:
    with database().transaction() as session:
        region = catalog.create_region(
            session,
            region_id,
            parent_region_id=body.parent_region_id,
            description=body.description or "",
            extra=body.extra(),
        )
    return json({"region": views.region(region)}, HTTPStatus.CREATED)
