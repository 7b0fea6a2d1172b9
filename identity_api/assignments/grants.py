"""Role assignments: given, taken away, and listed as they are."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, delete, select
from sqlalchemy.orm import Session

from app.core import errors
from identity_api import epoch
from identity_api.models import Assignment, Group, Membership, Project, Role, User


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Who has, or may get, roles on what. Kinds: user, group; project, domain, system."""

    actor_kind: str
    actor_id: str
    target_kind: str
    target_id: str
    inherited: bool = False


def check_actor_and_target(session: Session, place: Grant) -> None:
    """Raise NotFound for an actor or target that is not there."""
    if place.actor_kind == "user":
        if session.get(User, place.actor_id) is None:
            raise errors.NotFound(f"Could not find user: {place.actor_id}.")
    elif session.get(Group, place.actor_id) is None:
        raise errors.NotFound(f"Could not find group: {place.actor_id}.")
    if place.target_kind == "system":
        return
    target = session.get(Project, place.target_id)
    if target is None or (place.target_kind == "domain") != target.is_domain:
        raise errors.NotFound(f"Could not find {place.target_kind}: {place.target_id}.")


def list_roles(session: Session, place: Grant) -> list[Role]:
    """The roles given there, by name; not what they imply."""
    query = select(Role).join(Assignment, Assignment.role_id == Role.id).where(*_conditions(place)).order_by(Role.name)
    return list(session.scalars(query))


def has_role(session: Session, place: Grant, role_id: str) -> bool:
    return session.get(Assignment, _key(place, role_id)) is not None


def assign_role(session: Session, place: Grant, role: Role) -> None:
    """Assign the role; idempotent. Raises Forbidden for a domain-specific role on the system or on a project of another
    domain. As in Keystone, any domain may be the target of one."""
    if role.domain_id and place.target_kind == "project":
        target = session.get_one(Project, place.target_id)
        if role.domain_id != target.domain_id:
            raise errors.Forbidden(
                f"Project {target.id} must be in the same domain as the role {role.id} being assigned."
            )
    if role.domain_id and place.target_kind == "system":
        raise errors.Forbidden(f"Role {role.id} is a domain-specific role. Unable to use it on the system.")
    if not has_role(session, place, role.id):
        session.add(
            Assignment(
                actor_kind=place.actor_kind,
                actor_id=place.actor_id,
                target_kind=place.target_kind,
                target_id=place.target_id,
                inherited=place.inherited,
                role_id=role.id,
            )
        )
        epoch.bump(session)


def revoke_role(session: Session, place: Grant, role_id: str) -> list[str]:
    """Take the role away; returns the ids of the users who lose it. Raises NotFound when it was not given."""
    found = session.get(Assignment, _key(place, role_id))
    if found is None:
        raise errors.NotFound(
            f"Could not find role assignment with role: {role_id}, user or group: {place.actor_id}, project, domain, "
            f"or system: {place.target_id}."
        )
    session.delete(found)
    session.flush()
    epoch.bump(session)
    if place.actor_kind == "user":
        return [place.actor_id]
    return list(session.scalars(select(Membership.user_id).where(Membership.group_id == place.actor_id)))


def remove_actor_assignments(session: Session, kind: str, ids: Sequence[str] | Select[str]) -> None:
    """Remove every assignment of these users or groups."""
    session.execute(delete(Assignment).where(Assignment.actor_kind == kind, Assignment.actor_id.in_(ids)))


def remove_target_assignments(session: Session, kind: str, ids: Sequence[str]) -> None:
    """Remove every assignment on these projects or domains."""
    session.execute(delete(Assignment).where(Assignment.target_kind == kind, Assignment.target_id.in_(ids)))


def _conditions(place: Grant) -> tuple[ColumnElement[bool], ...]:
    return (
        Assignment.actor_kind == place.actor_kind,
        Assignment.actor_id == place.actor_id,
        Assignment.target_kind == place.target_kind,
        Assignment.target_id == place.target_id,
        Assignment.inherited == place.inherited,
    )


def _key(place: Grant, role_id: str) -> tuple[str, str, str, str, str, bool]:
    return (place.actor_kind, place.actor_id, place.target_kind, place.target_id, role_id, place.inherited)
