"""Bodies of application credentials and access rules."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from app.web.bodies import Body
from identity_api.schemas.common import Flag, Name, Text


class LenientBody(Body):
    model_config = ConfigDict(extra="ignore")


class RoleReference(LenientBody):
    id: Annotated[str, StringConstraints(max_length=64)] | None = None
    name: Annotated[str, StringConstraints(max_length=255)] | None = None

    @model_validator(mode="after")
    def _check_reference(self) -> "RoleReference":
        if not self.id and not self.name:
            raise ValueError("a role needs an id or a name")
        return self


class NewAccessRule(LenientBody):
    id: Annotated[str, StringConstraints(max_length=64)] | None = None
    path: Annotated[str, StringConstraints(max_length=128, pattern=r"^/.*")] | None = None
    method: Annotated[str, StringConstraints(pattern=r"^(POST|GET|HEAD|PATCH|PUT|DELETE)$")] | None = None
    service: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None

    @model_validator(mode="after")
    def _check_complete(self) -> "NewAccessRule":
        if self.id is None and not (self.path and self.method and self.service):
            raise ValueError("an access rule needs a path, a method and a service")
        return self


class NewApplicationCredential(LenientBody):
    name: Name
    description: Text | None = None
    secret: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    expires_at: datetime | None = None
    roles: Annotated[list[RoleReference], Field(max_length=255)] | None = None
    unrestricted: Flag = False
    access_rules: Annotated[list[NewAccessRule], Field(max_length=255)] | None = None

    @field_validator("expires_at", mode="before")
    @classmethod
    def _check_is_string(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, str):
            raise ValueError("it must be a time such as 2026-01-31T12:00:00")
        return value

    def expiry(self) -> datetime | None:
        """Expiry; a time without a zone is UTC."""
        if self.expires_at is None or self.expires_at.tzinfo is not None:
            return self.expires_at
        return self.expires_at.replace(tzinfo=UTC)
