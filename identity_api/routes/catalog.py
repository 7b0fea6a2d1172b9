"""Routes of services, endpoints and regions."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from flask import Blueprint, Response, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from app.web.context import clock, database
from app.web.responses import empty, json
from identity_api import epoch
from identity_api.conflicts import conflict_on_duplicate
from identity_api.directory import catalog
from identity_api.listing import list_page
from identity_api.models import CatalogService, Endpoint, Region
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
from identity_api.schemas.common import Fields
from identity_api.views import catalog as views
from identity_api.views.common import collection

blueprint = Blueprint("identity_catalog", __name__)


@blueprint.get("/services")
@guard("identity:list_services")
def services() -> Response:
    with database().reading() as session:
        page = list_page(
            session,
            select(CatalogService),
            request.args,
            sort_key=CatalogService.created_at,
            id_column=CatalogService.id,
            filters={"type": CatalogService.type, "name": CatalogService.name},
            boolean_filters={"enabled": CatalogService.enabled},
        )
        return json(collection("services", [views.service(row) for row in page.rows], page.next_marker))


@blueprint.post("/services")
@guard("identity:create_service")
def create_service() -> Response:
    body = parse_member(NewService, "service")
    with database().transaction() as session:
        service = CatalogService(
            id=uuid4().hex,
            type=body.type,
            name=body.name,
            description=body.description,
            enabled=body.enabled,
            extra=body.extra(),
            created_at=clock().now(),
        )
        session.add(service)
        epoch.bump(session)
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
        found = catalog.find_service(session, service_id)
        _update(session, found, body.provided("type", "name", "description", "enabled"), body)
    return json({"service": views.service(found)})


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
        page = list_page(
            session,
            select(Endpoint),
            request.args,
            sort_key=Endpoint.created_at,
            id_column=Endpoint.id,
            filters={
                "interface": Endpoint.interface,
                "service_id": Endpoint.service_id,
                "region_id": Endpoint.region_id,
                "region": Endpoint.region_id,
            },
            boolean_filters={"enabled": Endpoint.enabled},
        )
        return json(collection("endpoints", [views.endpoint(row) for row in page.rows], page.next_marker))


@blueprint.post("/endpoints")
@guard("identity:create_endpoint")
def create_endpoint() -> Response:
    body = parse_member(NewEndpoint, "endpoint")
    catalog.check_url(body.url)
    with database().transaction() as session:
        region_id = body.region_id or _ensure_region(session, body.region)
        catalog.check_service_and_region(session, body.service_id, region_id)
        endpoint = Endpoint(
            id=uuid4().hex,
            service_id=body.service_id,
            region_id=region_id,
            interface=body.interface,
            url=body.url,
            enabled=body.enabled,
            extra=body.extra(),
            created_at=clock().now(),
        )
        session.add(endpoint)
        epoch.bump(session)
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
    if "url" in changes:
        catalog.check_url(body.url)
    with database().transaction() as session:
        found = catalog.find_endpoint(session, endpoint_id)
        if "region" in body.model_fields_set and "region_id" not in changes:
            changes["region_id"] = _ensure_region(session, body.region)
        catalog.check_service_and_region(session, changes.get("service_id"), changes.get("region_id"))
        _update(session, found, changes, body)
    return json({"endpoint": views.endpoint(found)})


@blueprint.delete("/endpoints/<endpoint_id>")
@guard("identity:delete_endpoint")
def delete_endpoint(endpoint_id: str) -> Response:
    with database().transaction() as session:
        session.delete(catalog.find_endpoint(session, endpoint_id))
        epoch.bump(session)
    return empty()


@blueprint.get("/regions")
@guard("identity:list_regions")
def regions() -> Response:
    with database().reading() as session:
        page = list_page(
            session,
            select(Region),
            request.args,
            sort_key=Region.id,
            id_column=Region.id,
            filters={"parent_region_id": Region.parent_region_id},
        )
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
        found = catalog.find_region(session, region_id)
        if changes.get("parent_region_id") is not None:
            catalog.check_parent_region(session, region_id, changes["parent_region_id"])
        _update(session, found, changes, body)
    return json({"region": views.region(found)})


@blueprint.delete("/regions/<region_id>")
@guard("identity:delete_region")
def delete_region(region_id: str) -> Response:
    with database().transaction() as session:
        catalog.delete_region(session, region_id)
    return empty()


def _create_region(body: NewRegion, region_id: str) -> Response:
    with database().transaction() as session:
        if body.parent_region_id is not None:
            catalog.check_parent_region(session, None, body.parent_region_id)
        with conflict_on_duplicate(session, "region", region_id):
            found = Region(
                id=region_id,
                description=body.description or "",
                parent_region_id=body.parent_region_id,
                extra=body.extra(),
            )
            session.add(found)
    return json({"region": views.region(found)}, HTTPStatus.CREATED)


def _ensure_region(session: Session, region_id: str | None) -> str | None:
    """Find or create the region given by the deprecated field `region`."""
    if region_id is not None and session.get(Region, region_id) is None:
        session.add(Region(id=region_id))
        session.flush()
    return region_id


def _update(
    session: Session, row: CatalogService | Endpoint | Region, changes: Mapping[str, Any], body: Fields
) -> None:
    for name, value in changes.items():
        setattr(row, name, value)
    if extra := body.extra():
        row.extra = {**row.extra, **extra}
    epoch.bump(session)
