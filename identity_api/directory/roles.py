"""Roles and implied roles."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.core import errors
from identity_api import epoch
from identity_api.conflicts import check_mutable, conflict_on_duplicate, merge_options
from identity_api.directory import application_credentials
from identity_api.directory.projects import find_domain
from identity_api.listing import Page, list_page
from identity_api.models import Assignment, Implication, Role

NEVER_IMPLIED = "admin"


def find(session: Session, role_id: str) -> Role:
    role = session.get(Role, role_id)
    if role is None:
        raise errors.NotFound(f"Could not find role: {role_id}.")
    return role


def find_pair(session: Session, prior_id: str, implied_id: str) -> tuple[Role, Role]:
    """Return the prior and the implied role. Raises NotFound."""
    return find(session, prior_id), find(session, implied_id)


def list_roles(session: Session, arguments: Mapping[str, str]) -> Page[Role]:
    """List global roles, or those of the domain `domain_id`, by name; filter: name."""
    query = select(Role).where(Role.domain_id == arguments.get("domain_id", ""))
    return list_page(session, query, arguments, sort_key=Role.name, id_column=Role.id, filters={"name": Role.name})


def create(session: Session, now: datetime, *, name: str, domain_id: str | None, **columns: Any) -> Role:
    """Create a global or domain-specific role. Raises Conflict, NotFound."""
    if domain_id is not None:
        find_domain(session, domain_id)
    role = Role(id=uuid4().hex, name=name, domain_id=domain_id or "", created_at=now, **columns)
    with conflict_on_duplicate(session, "role", name):
        session.add(role)
    epoch.bump(session)
    return role


def change(session: Session, role: Role, changes: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Update fields. Raises Forbidden for an immutable role, unless the change makes it mutable."""
    only_unlocks = not extra and set(changes) == {"options"} and set(changes["options"]) <= {"immutable"}
    if not only_unlocks:
        check_mutable("role", role.id, role.options)
    with conflict_on_duplicate(session, "role", changes.get("name", role.name)):
        for name, value in changes.items():
            setattr(role, name, merge_options(role.options, value) if name == "options" else value)
        if extra:
            role.extra = {**role.extra, **extra}
    epoch.bump(session)


def remove(session: Session, role: Role) -> None:
    """Delete the role, its assignments, and application credentials that hold it."""
    check_mutable("role", role.id, role.options, deleting=True)
    application_credentials.remove_with_role(session, role.id)
    session.execute(delete(Assignment).where(Assignment.role_id == role.id))
    session.delete(role)
    session.flush()
    epoch.bump(session)


def load_implications(session: Session, prior_id: str | None = None) -> dict[str, list[Role]]:
    """Return the implied roles, sorted by name, by prior role id; optionally for one prior role."""
    query = select(Implication.prior_id, Role).join(Role, Role.id == Implication.implied_id).order_by(Role.name)
    if prior_id is not None:
        query = query.where(Implication.prior_id == prior_id)
    by_prior: dict[str, list[Role]] = {}
    for prior, role in session.execute(query):
        by_prior.setdefault(prior, []).append(role)
    return by_prior


def list_inferences(session: Session) -> list[tuple[Role, list[Role]]]:
    """List prior roles with the roles they imply, by name."""
    implied = load_implications(session)
    priors = session.scalars(select(Role).where(Role.id.in_(implied)).order_by(Role.name))
    return [(prior, implied[prior.id]) for prior in priors]


def check_implication(session: Session, prior: Role, implied: Role) -> None:
    """Raise NotFound unless `prior` implies `implied`."""
    if session.get(Implication, (prior.id, implied.id)) is None:
        raise errors.NotFound(f"{prior.id} does not imply {implied.id}.")


def add_implication(session: Session, prior: Role, implied: Role) -> None:
    """Add an implied role; idempotent. Raises Forbidden for admin, and for a domain-specific role of a global one."""
    if implied.name == NEVER_IMPLIED and not implied.domain_id:
        raise errors.Forbidden(f"{implied.id} cannot be an implied roles.")
    if implied.domain_id and not prior.domain_id:
        raise errors.Forbidden(f"{implied.id} cannot be an implied roles.")
    if session.get(Implication, (prior.id, implied.id)) is None:
        session.add(Implication(prior_id=prior.id, implied_id=implied.id))
        epoch.bump(session)


def remove_implication(session: Session, prior: Role, implied: Role) -> None:
    """Remove an implied role. Raises NotFound."""
    check_implication(session, prior, implied)
    session.execute(delete(Implication).where(Implication.prior_id == prior.id, Implication.implied_id == implied.id))
    epoch.bump(session)
