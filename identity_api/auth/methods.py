"""Authentication methods and requested scopes, and their lookup by id or name."""

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
    """Reference to a user, project or domain by id or by name; with the domain of a user or project by id or name."""

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
    """Reference to an application credential by id, or by name and user."""

    id: str | None
    name: str | None
    user: Reference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationCredentialAuth:
    credential: CredentialReference
    secret: str


AuthMethod = PasswordAuth | TokenAuth | ApplicationCredentialAuth


@dataclass(frozen=True, slots=True)
class RequestedScope:
    """Scope of a log-in request. `target` is the project or domain."""

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
"""Case-insensitive, as Keystone on MySQL; an exact match is preferred."""


def find_user(session: Session, reference: Reference) -> User | None:
    """Return the user by id, or by name and domain; also disabled users."""
    if reference.id is not None:
        return session.scalar(USER_BY_ID, {"id": reference.id})
    domain_id = _find_domain_id(session, reference)
    if domain_id is None or reference.name is None:
        return None
    return session.scalar(USER_BY_NAME, {"name": reference.name, "domain_id": domain_id})


def require_found(row: Found | None) -> Found:
    """Raise Unauthorized for None. Creating users does not change the epoch, so absence must not be cached."""
    if row is None:
        raise errors.Unauthorized(UNAUTHORIZED)
    return row


def _find_domain_id(session: Session, reference: Reference) -> str | None:
    if reference.domain_id is not None:
        return reference.domain_id
    return _find_id_by_name(session, reference.domain_name or "", Project.is_domain)


def _find_id_by_name(
    session: Session, name: str, *where: ColumnElement[bool] | InstrumentedAttribute[bool]
) -> str | None:
    """Return the id of the project or domain with this name, ignoring case; an exact match is preferred."""
    query = select(Project.id).where(same_name(Project.name, name), *where)
    return session.scalar(query.order_by(Project.name != name, Project.name).limit(1))


def find_credential(session: Session, reference: CredentialReference) -> ApplicationCredential | None:
    if reference.id is not None:
        return session.get(ApplicationCredential, reference.id)
    user = find_user(session, reference.user) if reference.user else None
    if user is None:
        return None
    query = select(ApplicationCredential).where(
        ApplicationCredential.user_id == user.id, ApplicationCredential.name == reference.name
    )
    return session.scalar(query)


def find_scope_id(session: Session, scope: RequestedScope) -> str:
    """Return the id of the scope's project or domain, empty for others. Raises Unauthorized if it does not exist."""
    target = scope.target
    if scope.kind in (Scope.SYSTEM, Scope.UNSCOPED):
        return ""
    if target.id is not None:
        return target.id
    if scope.kind is Scope.DOMAIN:
        scope_id = _find_id_by_name(session, target.name or "", Project.is_domain)
    else:
        domain_id = _find_domain_id(session, target)
        scope_id = _find_id_by_name(session, target.name or "", Project.domain_id == domain_id, ~Project.is_domain)
    if scope_id is None:
        raise errors.Unauthorized(UNAUTHORIZED)
    return scope_id
