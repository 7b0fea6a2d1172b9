"""Users, their passwords and options."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from app.core.settings import Settings
from identity_api import epoch
from identity_api.assignments import grants
from identity_api.auth import lockouts
from identity_api.conflicts import check_name_is_free, conflict_on_duplicate, merge_options
from identity_api.directory.projects import find_domain
from identity_api.listing import Page, list_page
from identity_api.models import Group, Membership, Project, User

OPTIONS = frozenset(
    {
        "ignore_change_password_upon_first_use",
        "ignore_password_expiry",
        "ignore_lockout_failure_attempts",
        "ignore_user_inactivity",
        "lock_password",
        "multi_factor_auth_enabled",
        "multi_factor_auth_rules",
    }
)


def find(session: Session, user_id: str) -> User:
    user = session.get(User, user_id)
    if user is None:
        raise errors.NotFound(f"Could not find user: {user_id}.")
    return user


def list_users(session: Session, arguments: Mapping[str, str]) -> Page[User]:
    """List users by name; filters: name, domain_id, enabled."""
    return list_page(
        session,
        select(User),
        arguments,
        sort_key=User.name,
        id_column=User.id,
        filters={"name": User.name, "domain_id": User.domain_id},
        boolean_filters={"enabled": User.enabled},
    )


def list_groups(session: Session, user_id: str, arguments: Mapping[str, str]) -> Page[Group]:
    """List the groups of a user by name. Raises NotFound."""
    find(session, user_id)
    query = select(Group).join(Membership, Membership.group_id == Group.id).where(Membership.user_id == user_id)
    return list_page(session, query, arguments, sort_key=Group.name, id_column=Group.id, filters={"name": Group.name})


def create(
    session: Session,
    now: datetime,
    settings: Settings,
    *,
    name: str,
    domain_id: str,
    password_hash: str | None,
    default_project_id: str | None,
    **columns: Any,
) -> User:
    """Create a user, without a password if `password_hash` is None. Raises Conflict, NotFound, BadRequest."""
    find_domain(session, domain_id)
    _check_default_project(session, default_project_id)
    check_options(columns.get("options") or {})
    user = User(
        id=uuid4().hex,
        name=name,
        domain_id=domain_id,
        default_project_id=default_project_id,
        created_at=now,
        **columns,
    )
    check_name_is_free(session, "user", user, name)
    with conflict_on_duplicate(session, "user", name):
        session.add(user)
        if password_hash is not None:
            _set_password(user, password_hash, now, settings)
    return user


def change(
    session: Session,
    user: User,
    now: datetime,
    settings: Settings,
    changes: Mapping[str, Any],
    extra: Mapping[str, Any],
    password_hash: str | None = None,
) -> None:
    """Update fields. A new password and disabling invalidate all tokens of the user."""
    if "default_project_id" in changes:
        _check_default_project(session, changes["default_project_id"])
    check_options(changes.get("options") or {})
    if "name" in changes:
        check_name_is_free(session, "user", user, changes["name"])
    ends_tokens = password_hash is not None or (changes.get("enabled") is False and user.enabled)
    with conflict_on_duplicate(session, "user", changes.get("name", user.name)):
        for name, value in changes.items():
            setattr(user, name, merge_options(user.options, value) if name == "options" else value)
        if extra:
            user.extra = {**user.extra, **extra}
        if password_hash is not None:
            _set_password(user, password_hash, now, settings)
            lockouts.clear_lockouts(session, user.id)
        if ends_tokens:
            user.generation = User.generation + 1
    session.refresh(user)
    epoch.bump(session)


def check_may_change_password(user: User, now: datetime, settings: Settings, new_is_old: bool) -> None:
    """Raise BadRequest if password policy forbids the user this change now."""
    if user.options.get("lock_password"):
        raise errors.BadRequest(
            "You cannot change your password at this time due to password policy disallowing password changes. Please "
            "contact your administrator to reset your password."
        )
    if new_is_old:
        raise errors.BadRequest("The new password cannot be identical to a previous password.")
    minimum = timedelta(days=settings.password_minimum_days)
    if minimum and user.password_changed_at is not None and now < user.password_changed_at + minimum:
        raise errors.BadRequest(
            "You cannot change your password at this time due to the minimum password age. Once you change your "
            f"password, it must be used for {settings.password_minimum_days:g} day(s) before it can be changed."
        )


def remove(session: Session, user: User) -> None:
    """Delete the user with credentials, memberships and role assignments."""
    lockouts.clear_lockouts(session, user.id)
    grants.remove_actor_assignments(session, "user", [user.id])
    session.delete(user)
    session.flush()
    epoch.bump(session)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise BadRequest for unknown options and invalid values."""
    for name, value in options.items():
        if name not in OPTIONS:
            raise errors.BadRequest(f"Additional properties are not allowed ('{name}' was unexpected)")
        if value is None:
            continue
        if name == "multi_factor_auth_rules":
            _check_multi_factor_rules(value)
        elif not isinstance(value, bool):
            raise errors.BadRequest(f"Invalid input for field 'options.{name}': it must be true, false or null.")


def _check_multi_factor_rules(rules: Any) -> None:
    is_valid = isinstance(rules, list) and all(
        isinstance(rule, list) and all(isinstance(method, str) for method in rule) for rule in rules
    )
    if not is_valid:
        raise errors.BadRequest(
            "Invalid input for field 'options.multi_factor_auth_rules': it must be a list of lists."
        )


def _set_password(user: User, password_hash: str, now: datetime, settings: Settings) -> None:
    user.password = password_hash
    user.password_changed_at = now
    days = settings.password_expires_days
    user.password_expires_at = now + timedelta(days=days) if days else None


def _check_default_project(session: Session, project_id: str | None) -> None:
    """Raise BadRequest for a domain. A project that does not exist is accepted, as in Keystone."""
    project = session.get(Project, project_id) if project_id is not None else None
    if project is not None and project.is_domain:
        raise errors.BadRequest(f"User's default project ID cannot be a domain ID: {project_id}")
