"""The tables of identity: who there is, what they may do where, what the catalog says, and what was revoked."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base

Id = String(64)
"""32 hex digits, but for the domain called `default` and what operators name themselves (regions)."""


class Epoch(Base):
    """One row that counts the changes after which a token may mean something else than before."""

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
    """A user. `generation` goes up when every token of the user must end: new password, disabled."""

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
    """Attempts to log in with a password since the last right one, by user and source address."""

    __tablename__ = "identity_password_attempts"

    subject: Mapped[str] = mapped_column(Id, primary_key=True)
    """The user's id, or a hash of the name of a user that does not exist."""
    source: Mapped[str] = mapped_column(String(45), primary_key=True)
    """An IPv4 address, an IPv6 prefix, or the empty string where it is not known."""
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
    """A user in a group."""

    __tablename__ = "identity_memberships"

    user_id: Mapped[str] = mapped_column(ForeignKey("identity_users.id", ondelete="CASCADE"), primary_key=True)
    group_id: Mapped[str] = mapped_column(
        ForeignKey("identity_groups.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class Role(Base):
    """A role; `domain_id` is the empty string for the roles of the whole cloud."""

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
    """Whoever has the prior role has the implied one too."""

    __tablename__ = "identity_implications"

    prior_id: Mapped[str] = mapped_column(ForeignKey("identity_roles.id", ondelete="CASCADE"), primary_key=True)
    implied_id: Mapped[str] = mapped_column(
        ForeignKey("identity_roles.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class Assignment(Base):
    """A role of an actor on a target. `inherited` ones count on the projects below the target and not on itself."""

    __tablename__ = "identity_assignments"

    actor_kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    """user or group"""
    actor_id: Mapped[str] = mapped_column(Id, primary_key=True)
    target_kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    """project, domain or system"""
    target_id: Mapped[str] = mapped_column(Id, primary_key=True)
    """of the project or domain; `system` for the system"""
    role_id: Mapped[str] = mapped_column(
        ForeignKey("identity_roles.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    inherited: Mapped[bool] = mapped_column(primary_key=True, default=False)

    __table_args__ = (Index("ix_identity_assignments_target", "target_kind", "target_id"),)


class ApplicationCredential(Base):
    """A way to log in as a user in one project with some of the user's roles.

    `digest` is "hmac$…" of a secret made here, which cannot be guessed, or an Argon2 hash of one chosen by the user.
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
    """None or empty: everything the roles allow. Otherwise: only what these access rules allow."""
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("user_id", "name"),)


class AccessRuleRow(Base):
    """A request that an application credential may make; shared by the credentials of its user."""

    __tablename__ = "identity_access_rules"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("identity_users.id", ondelete="CASCADE"))
    service: Mapped[str] = mapped_column(String(64))
    method: Mapped[str] = mapped_column(String(16))
    path: Mapped[str] = mapped_column(String(128))

    __table_args__ = (UniqueConstraint("user_id", "service", "method", "path"),)


class RevokedToken(Base):
    """A token that somebody ended; the row may go once the token would have expired."""

    __tablename__ = "identity_revoked_tokens"

    audit_id: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Credential(Base):
    """A credential that identity keeps for others: an EC2 key pair, or a blob that means something to its owner."""

    __tablename__ = "identity_credentials"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("identity_users.id", ondelete="CASCADE"), index=True)
    project_id: Mapped[str | None] = mapped_column(Id)
    kind: Mapped[str] = mapped_column(String(255))
    sealed: Mapped[str] = mapped_column(Text)
    """The blob, encrypted with the keys of this installation."""
    extra: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]


class Region(Base):
    """A region of the catalog."""

    __tablename__ = "identity_regions"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    description: Mapped[str] = mapped_column(Text, default="")
    parent_region_id: Mapped[str | None] = mapped_column(ForeignKey("identity_regions.id"))
    extra: Mapped[dict[str, Any]] = mapped_column(default=dict)


class CatalogService(Base):
    """A service of the catalog."""

    __tablename__ = "identity_services"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    type: Mapped[str] = mapped_column(String(255))
    name: Mapped[str | None] = mapped_column(String(255))
    description: Mapped[str | None] = mapped_column(Text)
    enabled: Mapped[bool] = mapped_column(default=True)
    extra: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]


class Endpoint(Base):
    """Where a service is. A `url` that begins with a slash is a path of this installation, whatever its host is."""

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
    """The limit of a resource of a service for every project that has none of its own."""

    __tablename__ = "identity_registered_limits"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    service_id: Mapped[str] = mapped_column(ForeignKey("identity_services.id"))
    region_id: Mapped[str | None] = mapped_column(ForeignKey("identity_regions.id"))
    resource_name: Mapped[str] = mapped_column(String(255))
    default_limit: Mapped[int] = mapped_column(BigInteger)
    description: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]


class Limit(Base):
    """The limit of a resource for one project or domain."""

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
