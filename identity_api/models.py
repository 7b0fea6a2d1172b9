"""Tables of the identity service: users, projects, role assignments, the catalog, and revoked tokens."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base

Id = String(64)
"""32 hex digits, except for the domain `default` and ids chosen by operators (regions)."""


class Epoch(Base):
    """One row: a counter that invalidates the token caches of all API processes when it changes."""

    __tablename__ = "identity_epoch"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(BigInteger, default=0)


class Project(Base):
    """A project, or a domain: a project that contains users, groups and projects (`is_domain`, no `domain_id`)."""

    __tablename__ = "identity_projects"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    is_domain: Mapped[bool] = mapped_column(default=False)
    domain_id: Mapped[str | None] = mapped_column(ForeignKey("identity_projects.id"))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("identity_projects.id"), index=True)
    description: Mapped[str] = mapped_column(Text, default="")
    enabled: Mapped[bool] = mapped_column(default=True)
    tags: Mapped[list[str]] = mapped_column(default=list)
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    extra: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("domain_id", "name"),
        Index(
            "uq_identity_projects_domain_name",
            "name",
            unique=True,
            sqlite_where=text("is_domain"),
            postgresql_where=text("is_domain"),
        ),
        Index("ix_identity_projects_lower_name", func.lower(name)),
    )


class User(Base):
    """A user. Incrementing `generation` invalidates all tokens of the user: new password, disabled."""

    __tablename__ = "identity_users"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    domain_id: Mapped[str] = mapped_column(ForeignKey("identity_projects.id"))
    enabled: Mapped[bool] = mapped_column(default=True)
    default_project_id: Mapped[str | None] = mapped_column(Id, index=True)
    password: Mapped[str | None] = mapped_column(String(255))
    password_changed_at: Mapped[datetime | None]
    password_expires_at: Mapped[datetime | None]
    generation: Mapped[int] = mapped_column(default=0)
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    extra: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("domain_id", "name"),
        Index("ix_identity_users_lower_name", func.lower(name)),
    )


class PasswordAttempts(Base):
    """Password attempts since the last successful log-in, by user and source address."""

    __tablename__ = "identity_password_attempts"

    subject: Mapped[str] = mapped_column(Id, primary_key=True)
    """User id, or a hash of the name of a user that does not exist."""
    source: Mapped[str] = mapped_column(String(45), primary_key=True)
    """IPv4 address, IPv6 /64 prefix, or the empty string if unknown."""
    attempts: Mapped[int]
    attempted_at: Mapped[datetime] = mapped_column(index=True)


class Group(Base):
    """A group of users."""

    __tablename__ = "identity_groups"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    domain_id: Mapped[str] = mapped_column(ForeignKey("identity_projects.id"))
    description: Mapped[str] = mapped_column(Text, default="")
    extra: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("domain_id", "name"),)


class Membership(Base):
    """The membership of a user in a group."""

    __tablename__ = "identity_memberships"

    user_id: Mapped[str] = mapped_column(ForeignKey("identity_users.id", ondelete="CASCADE"), primary_key=True)
    group_id: Mapped[str] = mapped_column(
        ForeignKey("identity_groups.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class Role(Base):
    """A role; `domain_id` is the empty string for global roles."""

    __tablename__ = "identity_roles"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    domain_id: Mapped[str] = mapped_column(Id, default="")
    description: Mapped[str | None] = mapped_column(Text)
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    extra: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("domain_id", "name"),)


class Implication(Base):
    """An implied role: users with the prior role also have the implied role."""

    __tablename__ = "identity_implications"

    prior_id: Mapped[str] = mapped_column(ForeignKey("identity_roles.id", ondelete="CASCADE"), primary_key=True)
    implied_id: Mapped[str] = mapped_column(
        ForeignKey("identity_roles.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class Assignment(Base):
    """A role of an actor on a target. An `inherited` role applies to the projects below the target only."""

    __tablename__ = "identity_assignments"

    actor_kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    """user or group"""
    actor_id: Mapped[str] = mapped_column(Id, primary_key=True)
    target_kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    """project, domain or system"""
    target_id: Mapped[str] = mapped_column(Id, primary_key=True)
    """id of the project or domain; `system` for the system"""
    role_id: Mapped[str] = mapped_column(
        ForeignKey("identity_roles.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    inherited: Mapped[bool] = mapped_column(primary_key=True, default=False)

    __table_args__ = (Index("ix_identity_assignments_target", "target_kind", "target_id"),)


class ApplicationCredential(Base):
    """A credential of a user for one project with a subset of the user's roles.

    `digest` is "hmac$…" for a generated secret (high entropy), or an Argon2 hash of a secret chosen by the user.
    """

    __tablename__ = "identity_application_credentials"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str | None] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(ForeignKey("identity_users.id", ondelete="CASCADE"))
    project_id: Mapped[str] = mapped_column(
        ForeignKey("identity_projects.id", ondelete="CASCADE", name="fk_identity_application_credentials_project"),
        index=True,
    )
    digest: Mapped[str] = mapped_column(String(255))
    expires_at: Mapped[datetime | None]
    unrestricted: Mapped[bool] = mapped_column(default=False)
    role_ids: Mapped[list[str]]
    access_rule_ids: Mapped[list[str] | None] = mapped_column(default=None)
    """None or empty: no restriction. Otherwise only requests that match one of these access rules are allowed."""
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("user_id", "name"),)


class AccessRuleRow(Base):
    """An access rule: a request that application credentials may make; shared by the credentials of its user."""

    __tablename__ = "identity_access_rules"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("identity_users.id", ondelete="CASCADE"))
    service: Mapped[str] = mapped_column(String(64))
    method: Mapped[str] = mapped_column(String(16))
    path: Mapped[str] = mapped_column(String(128))

    __table_args__ = (UniqueConstraint("user_id", "service", "method", "path"),)


class RevokedToken(Base):
    """A revoked token; the row is deleted after the token would have expired."""

    __tablename__ = "identity_revoked_tokens"

    audit_id: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Credential(Base):
    """A credential stored for its owner: an EC2 key pair or an opaque blob."""

    __tablename__ = "identity_credentials"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("identity_users.id", ondelete="CASCADE"), index=True)
    project_id: Mapped[str | None] = mapped_column(Id)
    kind: Mapped[str] = mapped_column(String(255))
    sealed: Mapped[str] = mapped_column(Text)
    """Blob, encrypted by `SecretCipher`."""
    extra: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]


class Region(Base):
    """A region of the service catalog."""

    __tablename__ = "identity_regions"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    description: Mapped[str] = mapped_column(Text, default="")
    parent_region_id: Mapped[str | None] = mapped_column(ForeignKey("identity_regions.id"))
    extra: Mapped[dict[str, Any]] = mapped_column(default=dict)


class CatalogService(Base):
    """A service of the service catalog."""

    __tablename__ = "identity_services"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    type: Mapped[str] = mapped_column(String(255))
    name: Mapped[str | None] = mapped_column(String(255))
    description: Mapped[str | None] = mapped_column(Text)
    enabled: Mapped[bool] = mapped_column(default=True)
    extra: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]


class Endpoint(Base):
    """An endpoint of a service. A `url` that begins with a slash is a path below this cloud's public URL."""

    __tablename__ = "identity_endpoints"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    service_id: Mapped[str] = mapped_column(ForeignKey("identity_services.id", ondelete="CASCADE"), index=True)
    region_id: Mapped[str | None] = mapped_column(ForeignKey("identity_regions.id"), index=True)
    interface: Mapped[str] = mapped_column(String(8))
    url: Mapped[str] = mapped_column(Text)
    enabled: Mapped[bool] = mapped_column(default=True)
    extra: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]


class RegisteredLimit(Base):
    """Default limit of a resource of a service, for projects without a limit of their own."""

    __tablename__ = "identity_registered_limits"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    service_id: Mapped[str] = mapped_column(ForeignKey("identity_services.id"))
    region_id: Mapped[str | None] = mapped_column(ForeignKey("identity_regions.id"))
    resource_name: Mapped[str] = mapped_column(String(255))
    default_limit: Mapped[int] = mapped_column(BigInteger)
    description: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]


class Limit(Base):
    """Limit of a resource for one project or domain."""

    __tablename__ = "identity_limits"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    registered_limit_id: Mapped[str] = mapped_column(
        ForeignKey("identity_registered_limits.id", name="fk_identity_limits_registered_limit")
    )
    project_id: Mapped[str | None] = mapped_column(ForeignKey("identity_projects.id", ondelete="CASCADE"))
    domain_id: Mapped[str | None] = mapped_column(ForeignKey("identity_projects.id", ondelete="CASCADE"))
    resource_limit: Mapped[int] = mapped_column(BigInteger)
    description: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("registered_limit_id", "project_id"),
        UniqueConstraint("registered_limit_id", "domain_id"),
    )
