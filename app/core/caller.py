"""The authenticated caller of a request: user, scope and roles of a validated token."""

from dataclasses import dataclass, field
from datetime import datetime

from app.core.errors import Forbidden


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRule:
    """One request that an application credential may make: service type, method and path pattern."""

    service: str
    method: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The user and scope of a token. `roles` are the names of effective roles, implied roles included."""

    user_id: str
    user_name: str = ""
    user_domain_id: str = "default"
    project_id: str | None = None
    project_domain_id: str | None = None
    domain_id: str | None = None
    system: bool = False
    roles: frozenset[str] = frozenset()
    expires_at: datetime | None = None
    audit_ids: tuple[str, ...] = ()
    application_credential_id: str | None = None
    access_rules: tuple[AccessRule, ...] | None = field(default=None)
    grant: bytes = field(default=b"", repr=False)
    """The token's payload, from which the identity service checks later whether the token is still valid."""

    @property
    def is_admin(self) -> bool:
        """Whether the caller has the admin role, in any scope: as with OpenStack's default policies, an admin of a
        project is an admin of the cloud."""
        return "admin" in self.roles

    @property
    def project(self) -> str:
        """The project of the token's scope; the empty string, which owns no resources, for other scopes."""
        return self.project_id or ""

    def require_project(self) -> str:
        """Return the project that owns resources this caller creates. Raises Forbidden for other scopes."""
        if not self.project_id:
            raise Forbidden("A token for a project is needed to create something in it.")
        return self.project_id
