"""What people prove themselves with, the scopes they ask for, and how both are found by name or id."""

from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import ColumnElement, bindparam, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.core import errors
from identity_api.conflicts import same_name
from identity_api.models import ApplicationCredential, Project, User
from identity_api.tokens.context import UNAUTHORIZED
from identity_api.tokens.payload import Scope


@dataclass(frozen=True, slots=True)
class Reference:
    """Something named by id, or by name; users and projects in a domain that is named by id or name too."""

    id: str | None = None
    name: str | None = None
    domain_id: str | None = None
    domain_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordAuth:
    user: Reference
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAuth:
    id: str


@dataclass(frozen=True, slots=True)
class CredentialReference:
    """An application credential by its id alone, or by its name and its user."""

    id: str | None
    name: str | None
    user: Reference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationCredentialAuth:
    named: CredentialReference
    secret: str


AuthMethod = PasswordAuth | TokenAuth | ApplicationCredentialAuth


@dataclass(frozen=True, slots=True)
class RequestedScope:
    """What is asked for. `target` names the project or domain."""

    kind: Scope
    target: Reference = Reference()


Found = TypeVar("Found")
USER_BY_ID = select(User).where(User.id == bindparam("id"))
USER_BY_NAME = (
    select(User)
    .where(same_name(User.name, bindparam("name")), User.domain_id == bindparam("domain_id"))
    .order_by(User.name != bindparam("name"), User.name)
    .limit(1)
)
"""Ignores case, as Keystone on MySQL does; of names that differ in case only, the exact one wins."""


def find_user(session: Session, user: Reference) -> User | None:
    """The user by id, or by name and domain; whether enabled or not."""
    if user.id is not None:
        return session.scalar(USER_BY_ID, {"id": user.id})
    domain_id = _find_domain_id(session, user)
    if domain_id is None or user.name is None:
        return None
    return session.scalar(USER_BY_NAME, {"name": user.name, "domain_id": domain_id})


def require_found(found: Found | None) -> Found:
    """What was found. New users and credentials do not move the epoch, so that there is none must not be remembered."""
    if found is None:
        raise errors.Unauthorized(UNAUTHORIZED)
    return found


def _find_domain_id(session: Session, named: Reference) -> str | None:
    if named.domain_id is not None:
        return named.domain_id
    return _find_id_by_name(session, named.domain_name or "", Project.is_domain)


def _find_id_by_name(
    session: Session, name: str, *where: ColumnElement[bool] | InstrumentedAttribute[bool]
) -> str | None:
    """The id of the project or domain of that name, in whatever case; an exact match wins."""
    query = select(Project.id).where(same_name(Project.name, name), *where)
    return session.scalar(query.order_by(Project.name != name, Project.name).limit(1))


def find_credential(session: Session, named: CredentialReference) -> ApplicationCredential | None:
    if named.id is not None:
        return session.get(ApplicationCredential, named.id)
    user = find_user(session, named.user) if named.user else None
    if user is None:
        return None
    query = select(ApplicationCredential).where(
        ApplicationCredential.user_id == user.id, ApplicationCredential.name == named.name
    )
    return session.scalar(query)


def find_scope_id(session: Session, wanted: RequestedScope) -> str:
    """The id of what is asked for. Raises Unauthorized when there is no such thing."""
    target = wanted.target
    if wanted.kind in (Scope.SYSTEM, Scope.UNSCOPED):
        return ""
    if target.id is not None:
        return target.id
    if wanted.kind is Scope.DOMAIN:
        found = _find_id_by_name(session, target.name or "", Project.is_domain)
    else:
        domain_id = _find_domain_id(session, target)
        found = _find_id_by_name(session, target.name or "", Project.domain_id == domain_id, ~Project.is_domain)
    if found is None:
        raise errors.Unauthorized(UNAUTHORIZED)
    return found
