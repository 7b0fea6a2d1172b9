"""Token context: user, scope and effective roles of a token, loaded from the database."""

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from app.core import errors
from app.core.caller import AccessRule, Caller
from identity_api.assignments import effective
from identity_api.assignments.effective import RoleGraph, RoleName
from identity_api.models import AccessRuleRow, ApplicationCredential, Project, User
from identity_api.tokens.payload import Payload, Scope

UNAUTHORIZED = "The request you have made requires authentication."


@dataclass(frozen=True, slots=True)
class NamedResource:
    """A user, project or domain with its domain."""

    id: str
    name: str
    domain_id: str
    domain_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialContext:
    """The application credential that a token was issued for. `rules` are pairs of id and access rule."""

    id: str
    name: str
    unrestricted: bool
    expires_at: datetime | None
    rules: tuple[tuple[str, AccessRule], ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthContext:
    """User, scope and roles. Valid until the identity epoch changes or the application credential expires."""

    user: NamedResource
    generation: int
    password_expires_at: datetime | None
    project: NamedResource | None = None
    domain: NamedResource | None = None
    system: bool = False
    roles: tuple[RoleName, ...] = ()
    credential: CredentialContext | None = None

    def is_valid_at(self, now: datetime) -> bool:
        """Whether the application credential, if any, has not expired."""
        end = self.credential.expires_at if self.credential else None
        return end is None or now < end


@dataclass(frozen=True, slots=True)
class TokenContext:
    """A token's payload with its authorization context."""

    payload: Payload
    auth_context: AuthContext

    @property
    def valid_until(self) -> datetime:
        """Expiry of the token or of its application credential, whichever is earlier."""
        end = self.auth_context.credential.expires_at if self.auth_context.credential else None
        return self.payload.expires_at if end is None else min(self.payload.expires_at, end)

    @property
    def audit_ids(self) -> tuple[str, ...]:
        """Audit id of the token, and of the first token of its chain."""
        ids = (self.payload.audit_id, self.payload.parent_audit_id)
        return tuple(_encode_audit_id(id_) for id_ in ids if id_ is not None)

    def caller(self) -> Caller:
        """Return the request context that all services use."""
        auth = self.auth_context
        rules = auth.credential.rules if auth.credential else None
        return Caller(
            user_id=auth.user.id,
            user_name=auth.user.name,
            user_domain_id=auth.user.domain_id,
            project_id=auth.project.id if auth.project else None,
            project_domain_id=auth.project.domain_id if auth.project else None,
            domain_id=auth.domain.id if auth.domain else None,
            system=auth.system,
            roles=frozenset(role.name for role in auth.roles),
            expires_at=self.payload.expires_at,
            audit_ids=self.audit_ids,
            application_credential_id=auth.credential.id if auth.credential else None,
            access_rules=None if rules is None else tuple(rule for _, rule in rules),
            grant=self.payload.pack(),
        )


def load_auth_context(
    session: Session, graph: RoleGraph, user_id: str, scope: Scope, scope_id: str, credential_id: str | None
) -> AuthContext:
    """Load the context of a user in a scope. Raises Unauthorized if either is missing or disabled, or without roles."""
    user, generation, password_expires_at = _load_user(session, user_id)
    common: dict[str, Any] = {
        "user": user,
        "generation": generation,
        "password_expires_at": password_expires_at,
    }
    if scope is Scope.UNSCOPED:
        return AuthContext(**common)
    if scope is Scope.SYSTEM:
        return AuthContext(
            **common, system=True, roles=_require_roles(graph, effective.find_system_roles(session, user.id))
        )
    if scope is Scope.DOMAIN:
        domain = _load_domain(session, scope_id)
        roles = _require_roles(graph, effective.find_domain_roles(session, user.id, domain.id))
        return AuthContext(**common, domain=domain, roles=roles)
    project, parent_id = _load_project(session, scope_id)
    role_ids = effective.find_project_roles(session, user.id, project.id, project.domain_id, parent_id)
    credential = None
    if credential_id is not None:
        credential, allowed = _load_credential(session, credential_id, user.id, project.id)
        role_ids = graph.closure(role_ids) & graph.closure(allowed)
    return AuthContext(**common, project=project, roles=_require_roles(graph, role_ids), credential=credential)


def _load_user(session: Session, user_id: str) -> tuple[NamedResource, int, datetime | None]:
    query = (
        select(User.name, User.domain_id, Project.name, User.generation, User.password_expires_at)
        .join(Project, Project.id == User.domain_id)
        .where(User.id == user_id, User.enabled, Project.enabled)
    )
    row = session.execute(query).first()
    if row is None:
        raise errors.Unauthorized(UNAUTHORIZED)
    name, domain_id, domain_name, generation, expires_at = row
    return NamedResource(user_id, name, domain_id, domain_name), generation, expires_at


def _load_domain(session: Session, domain_id: str) -> NamedResource:
    query = select(Project.name).where(Project.id == domain_id, Project.is_domain, Project.enabled)
    name = session.scalar(query)
    if name is None:
        raise errors.Unauthorized(UNAUTHORIZED)
    return NamedResource(domain_id, name, domain_id, name)


def _load_project(session: Session, project_id: str) -> tuple[NamedResource, str | None]:
    domain = aliased(Project)
    query = (
        select(Project.name, domain.id, domain.name, Project.parent_id)
        .join(domain, domain.id == Project.domain_id)
        .where(Project.id == project_id, Project.enabled, domain.enabled)
    )
    row = session.execute(query).first()
    if row is None:
        raise errors.Unauthorized(UNAUTHORIZED)
    name, domain_id, domain_name, parent_id = row
    return NamedResource(project_id, name, domain_id, domain_name), parent_id


def _load_credential(
    session: Session, credential_id: str, user_id: str, project_id: str
) -> tuple[CredentialContext, set[str]]:
    """Return the credential and its role ids, without implied roles."""
    credential = session.get(ApplicationCredential, credential_id)
    if credential is None or credential.user_id != user_id or credential.project_id != project_id:
        raise errors.Unauthorized(UNAUTHORIZED)
    rules = None
    if credential.access_rule_ids:
        query = select(AccessRuleRow).where(AccessRuleRow.id.in_(credential.access_rule_ids)).order_by(AccessRuleRow.id)
        rules = tuple(
            (row.id, AccessRule(service=row.service, method=row.method, path=row.path))
            for row in session.scalars(query)
        )
    used = CredentialContext(
        id=credential.id,
        name=credential.name,
        unrestricted=credential.unrestricted,
        expires_at=credential.expires_at,
        rules=rules,
    )
    return used, set(credential.role_ids)


def _require_roles(graph: RoleGraph, role_ids: set[str]) -> tuple[RoleName, ...]:
    """Return the roles with implied ones, sorted by name. Raises Unauthorized if there are none."""
    roles = graph.global_roles(graph.closure(role_ids))
    if not roles:
        raise errors.Unauthorized(UNAUTHORIZED)
    return roles


def _encode_audit_id(audit_id: bytes) -> str:
    return urlsafe_b64encode(audit_id).rstrip(b"=").decode()
