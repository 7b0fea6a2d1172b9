"""Service catalog: services, endpoints and regions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlparse
from uuid import uuid4

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.core import errors
from identity_api import epoch
from identity_api.conflicts import conflict_on_duplicate
from identity_api.listing import Page, list_page
from identity_api.models import CatalogService, Endpoint, Region, RegisteredLimit

PROJECT_MARKS = ("$(project_id)s", "%(project_id)s", "$(tenant_id)s", "%(tenant_id)s")
USER_MARKS = ("$(user_id)s", "%(user_id)s")


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A service with its enabled endpoints."""

    service: CatalogService
    endpoints: tuple[Endpoint, ...]


def load_catalog(session: Session) -> tuple[CatalogEntry, ...]:
    """Load the enabled services that have enabled endpoints."""
    by_service: dict[str, list[Endpoint]] = {}
    for endpoint in session.scalars(select(Endpoint).where(Endpoint.enabled).order_by(Endpoint.created_at)):
        by_service.setdefault(endpoint.service_id, []).append(endpoint)
    services = session.scalars(select(CatalogService).where(CatalogService.enabled).order_by(CatalogService.created_at))
    return tuple(
        CatalogEntry(service, tuple(by_service[service.id])) for service in services if service.id in by_service
    )


def render_url(url: str, base: str, project_id: str | None, user_id: str) -> str | None:
    """Substitute project and user ids in an endpoint URL; None if it needs a project and there is none."""
    if url.startswith("/"):
        return base + url
    for mark in PROJECT_MARKS:
        if mark in url:
            if project_id is None:
                return None
            url = url.replace(mark, project_id)
    for mark in USER_MARKS:
        url = url.replace(mark, user_id)
    return url


def find_service(session: Session, service_id: str) -> CatalogService:
    service = session.get(CatalogService, service_id)
    if service is None:
        raise errors.NotFound(f"Could not find service: {service_id}.")
    return service


def list_services(session: Session, arguments: Mapping[str, str]) -> Page[CatalogService]:
    """List services by creation time; filters: type, name, enabled."""
    return list_page(
        session,
        select(CatalogService),
        arguments,
        sort_key=CatalogService.created_at,
        id_column=CatalogService.id,
        filters={"type": CatalogService.type, "name": CatalogService.name},
        boolean_filters={"enabled": CatalogService.enabled},
    )


def create_service(session: Session, now: datetime, **columns: Any) -> CatalogService:
    """Create a service."""
    service = CatalogService(id=uuid4().hex, created_at=now, **columns)
    session.add(service)
    epoch.bump(session)
    return service


def change(
    session: Session, row: CatalogService | Endpoint | Region, changes: Mapping[str, Any], extra: Mapping[str, Any]
) -> None:
    """Update fields of a service, endpoint or region; `extra` fields are merged."""
    for name, value in changes.items():
        setattr(row, name, value)
    if extra:
        row.extra = {**row.extra, **extra}
    epoch.bump(session)


def delete_service(session: Session, service_id: str) -> None:
    """Delete the service and its endpoints. Raises Forbidden if limits are registered for it."""
    service = find_service(session, service_id)
    if session.scalar(select(RegisteredLimit.id).where(RegisteredLimit.service_id == service_id).limit(1)):
        raise errors.Forbidden(f"Unable to delete service {service_id}: limits are registered for it.")
    session.execute(delete(Endpoint).where(Endpoint.service_id == service_id))
    session.delete(service)
    epoch.bump(session)


def find_endpoint(session: Session, endpoint_id: str) -> Endpoint:
    endpoint = session.get(Endpoint, endpoint_id)
    if endpoint is None:
        raise errors.NotFound(f"Could not find endpoint: {endpoint_id}.")
    return endpoint


def list_endpoints(session: Session, arguments: Mapping[str, str]) -> Page[Endpoint]:
    """List endpoints by creation time; filters: interface, service_id, region_id, region, enabled."""
    return list_page(
        session,
        select(Endpoint),
        arguments,
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


def create_endpoint(
    session: Session, now: datetime, *, service_id: str, region_id: str | None, url: str, **columns: Any
) -> Endpoint:
    """Create an endpoint. Raises BadRequest."""
    check_url(url)
    check_service_and_region(session, service_id, region_id)
    endpoint = Endpoint(id=uuid4().hex, service_id=service_id, region_id=region_id, url=url, created_at=now, **columns)
    session.add(endpoint)
    epoch.bump(session)
    return endpoint


def change_endpoint(session: Session, endpoint: Endpoint, changes: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Update fields. Raises BadRequest."""
    if "url" in changes:
        check_url(changes["url"])
    check_service_and_region(session, changes.get("service_id"), changes.get("region_id"))
    change(session, endpoint, changes, extra)


def delete_endpoint(session: Session, endpoint: Endpoint) -> None:
    session.delete(endpoint)
    epoch.bump(session)


def ensure_region(session: Session, region_id: str | None) -> str | None:
    """Create the region if it does not exist: the deprecated field `region` of endpoints. Returns its id."""
    if region_id is not None and session.get(Region, region_id) is None:
        session.add(Region(id=region_id))
        session.flush()
    return region_id


def check_url(url: str) -> None:
    """Raise BadRequest for a URL without a scheme, or without host and path."""
    parsed = urlparse(url)
    if not parsed.scheme or not (parsed.netloc or parsed.path):
        raise errors.BadRequest(f"Cannot create an endpoint with an invalid URL: {url}.")


def check_service_and_region(session: Session, service_id: str | None, region_id: str | None) -> None:
    """Raise BadRequest if the service or region does not exist."""
    if service_id is not None and session.get(CatalogService, service_id) is None:
        raise errors.BadRequest(f"Could not find service: {service_id}.")
    if region_id is not None and session.get(Region, region_id) is None:
        raise errors.BadRequest(f"Could not find region: {region_id}.")


def find_region(session: Session, region_id: str) -> Region:
    region = session.get(Region, region_id)
    if region is None:
        raise errors.NotFound(f"Could not find region: {region_id}.")
    return region


def list_regions(session: Session, arguments: Mapping[str, str]) -> Page[Region]:
    """List regions by id; filter: parent_region_id."""
    return list_page(
        session,
        select(Region),
        arguments,
        sort_key=Region.id,
        id_column=Region.id,
        filters={"parent_region_id": Region.parent_region_id},
    )


def create_region(session: Session, region_id: str, *, parent_region_id: str | None, **columns: Any) -> Region:
    """Create a region. Raises NotFound for an unknown parent, Conflict."""
    if parent_region_id is not None:
        check_parent_region(session, None, parent_region_id)
    region = Region(id=region_id, parent_region_id=parent_region_id, **columns)
    with conflict_on_duplicate(session, "region", region_id):
        session.add(region)
    return region


def change_region(session: Session, region: Region, changes: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Update fields. Raises NotFound for an unknown parent, BadRequest for a circular hierarchy."""
    if changes.get("parent_region_id") is not None:
        check_parent_region(session, region.id, changes["parent_region_id"])
    change(session, region, changes, extra)


def check_parent_region(session: Session, region_id: str | None, parent_id: str) -> None:
    """Raise NotFound if the parent does not exist, BadRequest if it is a descendant of the region."""
    ancestor: str | None = parent_id
    while ancestor is not None:
        if ancestor == region_id:
            raise errors.BadRequest(
                f"The specified parent region {parent_id} would create a circular region hierarchy."
            )
        ancestor = find_region(session, ancestor).parent_region_id


def delete_region(session: Session, region_id: str) -> None:
    """Delete the region and its descendants. Raises Forbidden if any has endpoints or registered limits."""
    subtree: list[str] = []
    parents: Sequence[str] = [find_region(session, region_id).id]
    while parents:
        subtree.extend(parents)
        parents = session.scalars(select(Region.id).where(Region.parent_region_id.in_(parents))).all()
    used: Any = select(Endpoint.id).where(Endpoint.region_id.in_(subtree)).limit(1)
    limits: Any = select(RegisteredLimit.id).where(RegisteredLimit.region_id.in_(subtree)).limit(1)
    if session.scalar(used) or session.scalar(limits):
        raise errors.Forbidden(
            f"Unable to delete region {region_id} because it or its child regions have associated endpoints."
        )
    for id_ in reversed(subtree):
        session.execute(delete(Region).where(Region.id == id_))
    epoch.bump(session)
