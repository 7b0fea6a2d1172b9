"""Unified limits: registered (default) limits, and limits of one project or domain.

The enforcement model is flat. The services of this cloud do not use these limits: they have quotas of their own.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, false, select
from sqlalchemy.orm import Session

from app.core import errors
from identity_api.conflicts import conflict_on_duplicate
from identity_api.directory import catalog, projects
from identity_api.listing import Page, list_page
from identity_api.models import Limit, RegisteredLimit

RESOURCE_FILTERS = {
    "service_id": RegisteredLimit.service_id,
    "region_id": RegisteredLimit.region_id,
    "resource_name": RegisteredLimit.resource_name,
}


def find_registered(session: Session, limit_id: str) -> RegisteredLimit:
    limit = session.get(RegisteredLimit, limit_id)
    if limit is None:
        raise errors.NotFound(f"Could not find registered limit for {limit_id}.")
    return limit


def find(session: Session, limit_id: str) -> Limit:
    limit = session.get(Limit, limit_id)
    if limit is None:
        raise errors.NotFound(f"Could not find limit for {limit_id}.")
    return limit


def list_registered(session: Session, arguments: Mapping[str, str]) -> Page[RegisteredLimit]:
    """List registered limits by creation time; filters: service_id, region_id, resource_name."""
    return list_page(
        session,
        select(RegisteredLimit),
        arguments,
        sort_key=RegisteredLimit.created_at,
        id_column=RegisteredLimit.id,
        filters=RESOURCE_FILTERS,
    )


def list_limits(session: Session, arguments: Mapping[str, str]) -> Page[Limit]:
    """List limits by creation time; filters as for registered limits, and project_id, domain_id."""
    return _list_limits(session, arguments)


def list_own_limits(
    session: Session, arguments: Mapping[str, str], project_id: str | None, domain_id: str | None
) -> Page[Limit]:
    """List the limits of the project, else of the domain, else none; filters as for `list_limits`."""
    own = Limit.project_id == project_id if project_id else Limit.domain_id == domain_id
    return _list_limits(session, arguments, own if project_id or domain_id else false())


def with_registered(session: Session, limits: Iterable[Limit]) -> list[tuple[Limit, RegisteredLimit]]:
    """Return the limits with their registered limits."""
    return [(limit, session.get_one(RegisteredLimit, limit.registered_limit_id)) for limit in limits]


def register(
    session: Session, now: datetime, *, service_id: str, region_id: str | None, resource_name: str, **columns: Any
) -> RegisteredLimit:
    """Create a registered limit. Raises BadRequest, Conflict."""
    catalog.check_service_and_region(session, service_id, region_id)
    if _find_registered(session, service_id, region_id, resource_name) is not None:
        raise _duplicate("registered_limit", resource_name)
    limit = RegisteredLimit(
        id=uuid4().hex,
        service_id=service_id,
        region_id=region_id,
        resource_name=resource_name,
        created_at=now,
        **columns,
    )
    session.add(limit)
    session.flush()
    return limit


def change_registered(session: Session, limit: RegisteredLimit, changes: Mapping[str, Any]) -> None:
    """Update fields. Raises Forbidden for a change of service, region or resource if project limits exist."""
    catalog.check_service_and_region(session, changes.get("service_id"), changes.get("region_id"))
    moving = {"service_id", "region_id", "resource_name"} & set(changes)
    if moving:
        _check_unused(session, limit)
        key = {name: changes.get(name, getattr(limit, name)) for name in ("service_id", "region_id", "resource_name")}
        other = _find_registered(session, **key)
        if other is not None and other.id != limit.id:
            raise _duplicate("registered_limit", key["resource_name"])
    for name, value in changes.items():
        setattr(limit, name, value)


def remove_registered(session: Session, limit: RegisteredLimit) -> None:
    """Delete a registered limit. Raises Forbidden if project limits exist."""
    _check_unused(session, limit)
    session.delete(limit)


def change(limit: Limit, changes: Mapping[str, Any]) -> None:
    """Update fields."""
    for name, value in changes.items():
        setattr(limit, name, value)


def create(
    session: Session,
    now: datetime,
    *,
    service_id: str,
    region_id: str | None,
    resource_name: str,
    project_id: str | None,
    domain_id: str | None,
    **columns: Any,
) -> Limit:
    """Create a limit of one project or domain. Raises BadRequest, Forbidden, Conflict."""
    registered = _find_registered(session, service_id, region_id, resource_name)
    if registered is None:
        raise errors.Forbidden("Unable to create a limit that has no corresponding registered limit.")
    try:
        if project_id is not None:
            projects.find(session, project_id)
        if domain_id is not None:
            projects.find_domain(session, domain_id)
    except errors.NotFound as error:
        raise errors.BadRequest(error.message) from None
    limit = Limit(
        id=uuid4().hex,
        registered_limit_id=registered.id,
        project_id=project_id,
        domain_id=domain_id,
        created_at=now,
        **columns,
    )
    with conflict_on_duplicate(session, "limit", resource_name):
        session.add(limit)
    return limit


def remove(session: Session, limit: Limit) -> None:
    """Delete a limit."""
    session.delete(limit)


def _list_limits(session: Session, arguments: Mapping[str, str], *where: ColumnElement[bool]) -> Page[Limit]:
    query = select(Limit).join(RegisteredLimit, RegisteredLimit.id == Limit.registered_limit_id).where(*where)
    return list_page(
        session,
        query,
        arguments,
        sort_key=Limit.created_at,
        id_column=Limit.id,
        filters={**RESOURCE_FILTERS, "project_id": Limit.project_id, "domain_id": Limit.domain_id},
    )


def _find_registered(
    session: Session, service_id: str, region_id: str | None, resource_name: str
) -> RegisteredLimit | None:
    query = select(RegisteredLimit).where(
        RegisteredLimit.service_id == service_id,
        RegisteredLimit.resource_name == resource_name,
        _same_region(region_id),
    )
    return session.scalar(query)


def _same_region(region_id: str | None) -> ColumnElement[bool]:
    return RegisteredLimit.region_id.is_(None) if region_id is None else RegisteredLimit.region_id == region_id


def _check_unused(session: Session, limit: RegisteredLimit) -> None:
    if session.scalar(select(Limit.id).where(Limit.registered_limit_id == limit.id).limit(1)):
        raise errors.Forbidden(
            f"Unable to update or delete registered limit {limit.id} because there are project limits associated "
            "with it."
        )


def _duplicate(kind: str, name: str) -> errors.Conflict:
    return errors.Conflict(f"Conflict occurred attempting to store {kind} - Duplicate entry found with name {name}.")
