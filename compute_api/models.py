"""Compute tables: servers, operations, migrations, flavors, key pairs, hosts, aggregates, quotas."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from app.db.database import Base
from compute_api.states import OperationState
from network_api import server_revisions

Seq = BigInteger().with_variant(Integer(), "sqlite")
"""A primary key in creation order."""


class Server(Base):
    """A server: desired state and last reported state.

    `flavor`, `image` and `key` are copies made at creation. `generation` is incremented by each action; outcomes of an
    older generation are discarded. `system_metadata` is internal data, see
    `compute_api.system_metadata`.
    """

    __tablename__ = "servers"

    seq: Mapped[int] = mapped_column(Seq, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(36), unique=True)
    project_id: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str | None] = mapped_column(String(255))
    hostname: Mapped[str] = mapped_column(String(255))
    flavor: Mapped[dict[str, Any]]
    flavor_id: Mapped[str] = mapped_column(String(255))
    image: Mapped[dict[str, Any]]
    image_id: Mapped[str] = mapped_column(String(36))
    key: Mapped[dict[str, Any]]
    user_data: Mapped[str | None] = mapped_column(Text)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    tags: Mapped[list[str]]
    config_drive: Mapped[bool] = mapped_column(default=True)
    disk_config: Mapped[str] = mapped_column(String(8), default="MANUAL")
    admin_pass: Mapped[str | None] = mapped_column(String(255))
    reservation_id: Mapped[str] = mapped_column(String(32))
    launch_index: Mapped[int] = mapped_column(default=0)
    availability_zone: Mapped[str] = mapped_column(String(255), default="")
    pinned_zone: Mapped[str | None] = mapped_column(String(255))
    host: Mapped[str | None] = mapped_column(String(255))
    vm_state: Mapped[str] = mapped_column(String(32))
    task_state: Mapped[str | None] = mapped_column(String(32))
    power_state: Mapped[int] = mapped_column(default=0)
    generation: Mapped[int] = mapped_column(default=0)
    locked: Mapped[bool] = mapped_column(default=False)
    locked_by: Mapped[str | None] = mapped_column(String(8))
    locked_reason: Mapped[str | None] = mapped_column(String(255))
    access_ipv4: Mapped[str] = mapped_column(String(15), default="")
    access_ipv6: Mapped[str] = mapped_column(String(39), default="")
    fault: Mapped[dict[str, Any]]
    system_metadata: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    launched_at: Mapped[datetime | None]
    terminated_at: Mapped[datetime | None]
    deleted: Mapped[bool] = mapped_column(default=False)
    group_id: Mapped[str | None] = mapped_column(String(36), index=True)
    revision: Mapped[int] = mapped_column(default=0, onupdate=text("revision + 1"))
    """Incremented by every change of the row, and by `increment_revisions` when its ports change; caches compare it."""

    __table_args__ = (
        Index("ix_servers_project_seq", "project_id", "deleted", "seq"),
        Index("ix_servers_project_name", "project_id", "name"),
        Index("ix_servers_project_updated", "project_id", "updated_at"),
        Index("ix_servers_host", "host", "deleted"),
    )


def increment_revisions(session: Session, server_ids: Iterable[str]) -> None:
    """Increment the revisions of servers whose ports have changed."""
    session.execute(
        update(Server)
        .where(Server.id.in_([*server_ids]))
        .values(revision=Server.revision + 1)
        .execution_options(synchronize_session=False)
    )


server_revisions.register(increment_revisions)


class Operation(Base):
    """A task for a host: written in the transaction that changes the server, claimed by the agent."""

    __tablename__ = "operations"

    id: Mapped[int] = mapped_column(Seq, primary_key=True, autoincrement=True)
    server_id: Mapped[str] = mapped_column(String(36), index=True)
    host: Mapped[str] = mapped_column(String(255))
    task: Mapped[str] = mapped_column(String(32))
    generation: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default=OperationState.QUEUED)
    request_id: Mapped[str] = mapped_column(String(64))
    arguments: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    nudged_at: Mapped[datetime | None]
    """When the host was last notified again of a queued operation; None after the first notification only."""
    error: Mapped[str | None] = mapped_column(Text)
    """Why it failed."""

    __table_args__ = (
        Index(
            "ix_operations_waiting",
            "host",
            "state",
            "id",
            sqlite_where=text("state IN ('queued', 'running')"),
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
    )


class ServerAction(Base):
    """An instance action: a user's action on a server and its result."""

    __tablename__ = "server_actions"

    id: Mapped[int] = mapped_column(Seq, primary_key=True, autoincrement=True)
    server_id: Mapped[str] = mapped_column(String(36), index=True)
    request_id: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[str] = mapped_column(String(64))
    project_id: Mapped[str] = mapped_column(String(64))
    started_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    message: Mapped[str | None] = mapped_column(Text)
    host: Mapped[str | None] = mapped_column(String(255))


class Flavor(Base):
    """A flavor."""

    __tablename__ = "flavors"

    seq: Mapped[int] = mapped_column(Seq, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(255), unique=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    vcpus: Mapped[int]
    ram: Mapped[int]
    disk: Mapped[int] = mapped_column(default=0)
    ephemeral: Mapped[int] = mapped_column(default=0)
    swap: Mapped[int] = mapped_column(default=0)
    rxtx_factor: Mapped[float] = mapped_column(default=1.0)
    is_public: Mapped[bool] = mapped_column(default=True)
    description: Mapped[str | None] = mapped_column(Text)
    extra_specs: Mapped[dict[str, str]]


class FlavorAccess(Base):
    """Access of a project to a private flavor."""

    __tablename__ = "flavor_access"

    flavor_id: Mapped[str] = mapped_column(ForeignKey("flavors.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(64), primary_key=True)


class KeyPair(Base):
    """A user's public key; key pairs belong to users, not projects."""

    __tablename__ = "key_pairs"

    id: Mapped[int] = mapped_column(Seq, primary_key=True, autoincrement=True)
    user_id: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(255))
    type: Mapped[str] = mapped_column(String(8), default="ssh")
    public_key: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("user_id", "name"),)


class Host(Base):
    """A compute host: capacity and claims on it."""

    __tablename__ = "hosts"

    seq: Mapped[int] = mapped_column(Seq, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(36), unique=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    zone: Mapped[str] = mapped_column(String(255))
    vcpus: Mapped[int]
    memory_mib: Mapped[int]
    disk_gib: Mapped[int]
    vcpus_limit: Mapped[int]
    memory_mib_limit: Mapped[int]
    disk_gib_limit: Mapped[int]
    vcpus_used: Mapped[int] = mapped_column(default=0)
    memory_mib_used: Mapped[int] = mapped_column(default=0)
    disk_gib_used: Mapped[int] = mapped_column(default=0)
    accelerator: Mapped[str] = mapped_column(String(8))
    accelerator_reason: Mapped[str | None] = mapped_column(Text)
    hypervisor_version: Mapped[int] = mapped_column(default=0)
    cpu_model: Mapped[str] = mapped_column(String(255), default="")
    disk_is_low: Mapped[bool] = mapped_column(default=False)
    disabled: Mapped[bool] = mapped_column(default=False)
    disabled_reason: Mapped[str | None] = mapped_column(String(255))
    forced_down: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    heartbeat: Mapped["Heartbeat"] = relationship(
        lazy="joined", uselist=False, cascade="all, delete-orphan", passive_deletes=True
    )

    @property
    def last_seen(self) -> datetime:
        """The time of the last heartbeat."""
        return self.heartbeat.last_seen


class Heartbeat(Base):
    """The last heartbeat of a host, in a narrow table of its own because it changes constantly."""

    __tablename__ = "host_heartbeats"

    host: Mapped[str] = mapped_column(ForeignKey("hosts.name", ondelete="CASCADE"), primary_key=True)
    last_seen: Mapped[datetime]


class HeartbeatWatermark(Base):
    """The heartbeat watermark, one row: all heartbeats up to `until` were received, without a gap since `since`.

    A host whose last heartbeat is before `silent_before` was down before the gap that ended at `since`.
    """

    __tablename__ = "heartbeat_watermark"
    ONLY: ClassVar[int] = 1

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    until: Mapped[datetime]
    since: Mapped[datetime]
    silent_before: Mapped[datetime]


class ServerGroup(Base):
    """A server group. Members are the servers with its `group_id`."""

    __tablename__ = "server_groups"

    seq: Mapped[int] = mapped_column(Seq, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(36), unique=True)
    project_id: Mapped[str] = mapped_column(String(64), index=True)
    user_id: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(255))
    policy: Mapped[str] = mapped_column(String(32))
    max_server_per_host: Mapped[int | None]
    created_at: Mapped[datetime]


class Aggregate(Base):
    """A host aggregate; with `availability_zone` in its metadata it is a zone."""

    __tablename__ = "aggregates"

    id: Mapped[int] = mapped_column(Seq, primary_key=True, autoincrement=True)
    uuid: Mapped[str] = mapped_column(String(36), unique=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime | None]


class AggregateHost(Base):
    """A host in an aggregate."""

    __tablename__ = "aggregate_hosts"

    aggregate_id: Mapped[int] = mapped_column(ForeignKey("aggregates.id", ondelete="CASCADE"), primary_key=True)
    host: Mapped[str] = mapped_column(String(255), primary_key=True)


class ProjectUsage(Base):
    """A project's quota usage: one row to lock, updated with the servers themselves."""

    __tablename__ = "project_usage"

    project_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    instances: Mapped[int] = mapped_column(default=0)
    cores: Mapped[int] = mapped_column(default=0)
    ram: Mapped[int] = mapped_column(default=0)


class QuotaLimit(Base):
    """A project's limit that differs from the default; -1 is unlimited. Project "" has the defaults of all projects."""

    __tablename__ = "quota_limits"

    project_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    resource: Mapped[str] = mapped_column(String(64), primary_key=True)
    limit: Mapped[int]


class UserQuotaLimit(Base):
    """A user's limit within a project; -1 is unlimited. Without a row the project's limit applies."""

    __tablename__ = "user_quota_limits"

    project_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    resource: Mapped[str] = mapped_column(String(64), primary_key=True)
    limit: Mapped[int]


class HostCredential(Base):
    """The credential of a remote host."""

    __tablename__ = "host_credentials"

    host: Mapped[str] = mapped_column(String(255), primary_key=True)
    sealed_hash: Mapped[str] = mapped_column(Text)
    """The SHA-256 of its secret, which is also the key of its proofs, sealed by `app.security.secret_cipher`. Hashes of
    earlier versions are sealed by `sixstack up`."""
    created_at: Mapped[datetime]


class Migration(Base):
    """A migration, cold resize or evacuation record, with Nova's types and statuses.

    `exchange` is data that phases pass on, including secrets; it is emptied at the end.
    """

    __tablename__ = "migrations"

    id: Mapped[int] = mapped_column(Seq, primary_key=True, autoincrement=True)
    uuid: Mapped[str] = mapped_column(String(36), unique=True)
    server_id: Mapped[str] = mapped_column(String(36), index=True)
    project_id: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str] = mapped_column(String(64))
    migration_type: Mapped[str] = mapped_column(String(16))  # migration, resize, live-migration, evacuation
    status: Mapped[str] = mapped_column(String(16), index=True)
    source_compute: Mapped[str] = mapped_column(String(255))
    dest_compute: Mapped[str] = mapped_column(String(255))
    dest_host: Mapped[str | None] = mapped_column(String(45))
    old_flavor: Mapped[int | None]
    new_flavor: Mapped[int | None]
    exchange: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    @property
    def is_live(self) -> bool:
        """Whether the guest keeps running during the migration."""
        return self.migration_type == "live-migration"


class ServerSize(Base):
    """Flavor history: a flavor that a server had until it was resized, as the server's own copy."""

    __tablename__ = "server_sizes"

    id: Mapped[int] = mapped_column(Seq, primary_key=True, autoincrement=True)
    server_id: Mapped[str] = mapped_column(String(36))
    until: Mapped[datetime]
    flavor: Mapped[dict[str, Any]]

    __table_args__ = (Index("ix_server_sizes_server_id", "server_id", "until"),)


class ConsoleToken(Base):
    """A console token; only its hash is stored."""

    __tablename__ = "console_tokens"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    server_id: Mapped[str] = mapped_column(String(36))
    host: Mapped[str] = mapped_column(String(255))
    console_type: Mapped[str] = mapped_column(String(16))
    issuer: Mapped[bytes] = mapped_column(LargeBinary)
    """The payload of the identity token that requested it (`Caller.grant`); invalid without it."""
    uses_left: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class PastServer(Base):
    """The usage record of a purged server.

    `flavor` is its last one, without extra specs; earlier ones stay in `server_sizes`.
    """

    __tablename__ = "past_servers"

    seq: Mapped[int] = mapped_column(Seq, primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(String(36), unique=True)
    project_id: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(255))
    flavor: Mapped[dict[str, Any]]
    launched_at: Mapped[datetime]
    terminated_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (Index("ix_past_servers_project_terminated", "project_id", "terminated_at"),)
