"""Who is asking: what a valid token says."""

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
    """The user and scope of a token. `roles` are effective names: implied ones are in it."""

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
    """The contents of the token, by which identity can tell later whether it is still valid."""

    @property
    def is_admin(self) -> bool:
        """Admin in any project or on the system is admin of the cloud, as OpenStack's defaults have it."""
        return "admin" in self.roles

    @property
    def project(self) -> str:
        """The project the token is scoped to; the empty string, which owns nothing, when there is none."""
        return self.project_id or ""

    def require_project(self) -> str:
        """The project that owns what this caller creates. Raises Forbidden for a token without a project."""
        if not self.project_id:
            raise Forbidden("A token for a project is needed to create something in it.")
        return self.project_id
