"""Grants: assignment and revocation of roles."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, delete, select
from sqlalchemy.orm import Session

from app.core import errors
from identity_api import epoch
from identity_api.models import Assignment, Group, Membership, Project, Role, User


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Actor and target of role assignments. Actor kinds: user, group; target kinds: project, domain, system."""

    actor_kind: str
    actor_id: str
    target_kind: str
    target_id: str
    inherited: bool = False


def check_actor_and_target(session: Session, grant: Grant) -> None:
    """Raise NotFound if the actor or target does not exist."""
    if grant.actor_kind == "user":
        if session.get(User, grant.actor_id) is None:
            raise errors.NotFound(f"Could not find user: {grant.actor_id}.")
    elif session.get(Group, grant.actor_id) is None:
        raise errors.NotFound(f"Could not find group: {grant.actor_id}.")
    if grant.target_kind == "system":
        return
    target = session.get(Project, grant.target_id)
    if target is None or (grant.target_kind == "domain") != target.is_domain:
        raise errors.NotFound(f"Could not find {grant.target_kind}: {grant.target_id}.")


def list_roles(session: Session, grant: Grant) -> list[Role]:
    """Return the directly assigned roles, sorted by name, without implied roles."""
    query = select(Role).join(Assignment, Assignment.role_id == Role.id).where(*_conditions(grant)).order_by(Role.name)
    return list(session.scalars(query))


def has_role(session: Session, grant: Grant, role_id: str) -> bool:
    return session.get(Assignment, _key(grant, role_id)) is not None


def assign_role(session: Session, grant: Grant, role: Role) -> None:
    """Assign the role; idempotent. Raises Forbidden for a domain-specific role on the system or on a project of another
    domain. As in Keystone, any domain may be the target of one."""
    if role.domain_id and grant.target_kind == "project":
        target = session.get_one(Project, grant.target_id)
        if role.domain_id != target.domain_id:
            raise errors.Forbidden(
                f"Project {target.id} must be in the same domain as the role {role.id} being assigned."
            )
    if role.domain_id and grant.target_kind == "system":
        raise errors.Forbidden(f"Role {role.id} is a domain-specific role. Unable to use it on the system.")
    if not has_role(session, grant, role.id):
        session.add(
            Assignment(
                actor_kind=grant.actor_kind,
                actor_id=grant.actor_id,
                target_kind=grant.target_kind,
                target_id=grant.target_id,
                inherited=grant.inherited,
                role_id=role.id,
            )
        )
        epoch.bump(session)


def revoke_role(session: Session, grant: Grant, role_id: str) -> list[str]:
    """Revoke the role; returns the ids of affected users. Raises NotFound if it is not assigned."""
    assignment = session.get(Assignment, _key(grant, role_id))
    if assignment is None:
        raise errors.NotFound(
            f"Could not find role assignment with role: {role_id}, user or group: {grant.actor_id}, project, domain, "
            f"or system: {grant.target_id}."
        )
    session.delete(assignment)
    session.flush()
    epoch.bump(session)
    if grant.actor_kind == "user":
        return [grant.actor_id]
    return list(session.scalars(select(Membership.user_id).where(Membership.group_id == grant.actor_id)))


def remove_actor_assignments(session: Session, kind: str, ids: Sequence[str] | Select[str]) -> None:
    """Delete all assignments of these users or groups."""
    session.execute(delete(Assignment).where(Assignment.actor_kind == kind, Assignment.actor_id.in_(ids)))


def remove_target_assignments(session: Session, kind: str, ids: Sequence[str]) -> None:
    """Delete all assignments on these projects or domains."""
    session.execute(delete(Assignment).where(Assignment.target_kind == kind, Assignment.target_id.in_(ids)))


def _conditions(grant: Grant) -> tuple[ColumnElement[bool], ...]:
    return (
        Assignment.actor_kind == grant.actor_kind,
        Assignment.actor_id == grant.actor_id,
        Assignment.target_kind == grant.target_kind,
        Assignment.target_id == grant.target_id,
        Assignment.inherited == grant.inherited,
    )


def _key(grant: Grant, role_id: str) -> tuple[str, str, str, str, str, bool]:
    return (grant.actor_kind, grant.actor_id, grant.target_kind, grant.target_id, role_id, grant.inherited)
