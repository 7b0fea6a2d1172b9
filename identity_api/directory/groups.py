"""Groups of users and their members."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from identity_api import epoch
from identity_api.assignments import grants
from identity_api.conflicts import conflict_on_duplicate
from identity_api.directory import application_credentials, users
from identity_api.directory.projects import find_domain
from identity_api.listing import Page, list_page
from identity_api.models import Group, Membership, User


def find(session: Session, group_id: str) -> Group:
    group = session.get(Group, group_id)
    if group is None:
        raise errors.NotFound(f"Could not find group: {group_id}.")
    return group


def list_groups(session: Session, arguments: Mapping[str, str]) -> Page[Group]:
    """List groups by name; filters: name, domain_id."""
    return list_page(
        session,
        select(Group),
        arguments,
        sort_key=Group.name,
        id_column=Group.id,
        filters={"name": Group.name, "domain_id": Group.domain_id},
    )


def list_members(session: Session, group_id: str, arguments: Mapping[str, str]) -> Page[User]:
    """List the users in a group by name. Raises NotFound."""
    find(session, group_id)
    return list_page(
        session,
        select(User).join(Membership, Membership.user_id == User.id).where(Membership.group_id == group_id),
        arguments,
        sort_key=User.name,
        id_column=User.id,
        filters={"name": User.name},
        boolean_filters={"enabled": User.enabled},
    )


def create(session: Session, now: datetime, *, name: str, domain_id: str, **columns: Any) -> Group:
    """Create a group. Raises Conflict, NotFound."""
    find_domain(session, domain_id)
    group = Group(id=uuid4().hex, name=name, domain_id=domain_id, created_at=now, **columns)
    with conflict_on_duplicate(session, "group", name):
        session.add(group)
    return group


def change(session: Session, group: Group, changes: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    with conflict_on_duplicate(session, "group", changes.get("name", group.name)):
        for name, value in changes.items():
            setattr(group, name, value)
        if extra:
            group.extra = {**group.extra, **extra}


def remove(session: Session, group: Group) -> None:
    """Delete the group and its role assignments."""
    members = list_member_ids(session, group.id)
    grants.remove_actor_assignments(session, "group", [group.id])
    session.delete(group)
    session.flush()
    application_credentials.remove_stale(session, members)
    epoch.bump(session)


def list_member_ids(session: Session, group_id: str) -> list[str]:
    return list(session.scalars(select(Membership.user_id).where(Membership.group_id == group_id)))


def has_member(session: Session, group_id: str, user_id: str) -> bool:
    return session.get(Membership, (user_id, group_id)) is not None


def check_member(session: Session, group_id: str, user_id: str) -> None:
    """Raise NotFound unless group and user exist and the user is a member."""
    find(session, group_id)
    users.find(session, user_id)
    if not has_member(session, group_id, user_id):
        raise errors.NotFound(f"Could not find user {user_id} in group {group_id}.")


def add_member(session: Session, group_id: str, user_id: str) -> None:
    """Add the user to the group; idempotent."""
    find(session, group_id)
    users.find(session, user_id)
    if not has_member(session, group_id, user_id):
        session.add(Membership(user_id=user_id, group_id=group_id))
        epoch.bump(session)


def remove_member(session: Session, group_id: str, user_id: str) -> None:
    """Remove the user from the group. Raises NotFound."""
    find(session, group_id)
    users.find(session, user_id)
    membership = session.get(Membership, (user_id, group_id))
    if membership is None:
        raise errors.NotFound(f"Could not find user {user_id} in group {group_id}.")
    session.delete(membership)
    session.flush()
    application_credentials.remove_stale(session, [user_id])
    epoch.bump(session)
