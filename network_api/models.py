"""Tables of the network service: networks, subnets, ports, subnet pools, segment ranges, quotas."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, ForeignKey, String, event, inspect
from sqlalchemy.orm import Mapped, Mapper, mapped_column, relationship

from app.db.database import Base, Json


class SubnetPool(Base):
    """IPv6 prefixes from which subnets are allocated. `cursor` is the index of the /64 where the next search starts."""

    __tablename__ = "subnet_pools"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(255), default="")
    description: Mapped[str] = mapped_column(String(255), default="")
    shared: Mapped[bool] = mapped_column(default=False)
    is_default: Mapped[bool] = mapped_column(default=False)
    prefixes: Mapped[list[str]]
    cursor: Mapped[int] = mapped_column(BigInteger, default=0)
    tags: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    revision_number: Mapped[int] = mapped_column(BigInteger, default=1)


class SegmentRange(Base):
    """VNIs for new networks, `first_vni` to `last_vni`, and the MTU of their segments. There is one row."""

    __tablename__ = "segment_ranges"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    first_vni: Mapped[int]
    last_vni: Mapped[int]
    next_vni: Mapped[int]
    mtu: Mapped[int]


class Network(Base):
    """A VXLAN segment. The default network is shared and belongs to the operator; users create the others.

    On an `isolated` network guests reach the router and the networks behind it, but not each other.
    """

    __tablename__ = "networks"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(String(255), default="")
    description: Mapped[str] = mapped_column(String(255), default="")
    shared: Mapped[bool] = mapped_column(default=False)
    is_default: Mapped[bool] = mapped_column(default=False)
    vni: Mapped[int] = mapped_column(unique=True)
    mtu: Mapped[int]
    isolated: Mapped[bool] = mapped_column(default=False)
    admin_state_up: Mapped[bool] = mapped_column(default=True)
    tags: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    revision_number: Mapped[int] = mapped_column(BigInteger, default=1)

    subnet: Mapped["Subnet | None"] = relationship(
        back_populates="network", uselist=False, lazy="joined", cascade="all, delete-orphan", passive_deletes=True
    )


class Subnet(Base):
    """The /64 of a network. A network has one subnet at most; prefixes are unique in the cloud."""

    __tablename__ = "subnets"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    network_id: Mapped[str] = mapped_column(ForeignKey("networks.id", ondelete="CASCADE"), unique=True)
    project_id: Mapped[str] = mapped_column(String(64), index=True)
    subnet_pool_id: Mapped[str | None] = mapped_column(ForeignKey("subnet_pools.id"), index=True)
    name: Mapped[str] = mapped_column(String(255), default="")
    description: Mapped[str] = mapped_column(String(255), default="")
    cidr: Mapped[str] = mapped_column(String(43), unique=True)
    gateway_ip: Mapped[str | None] = mapped_column(String(39))
    dns_nameservers: Mapped[list[str]] = mapped_column(default=list)
    host_routes: Mapped[list[dict[str, str]]] = mapped_column(Json, default=list)
    tags: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    revision_number: Mapped[int] = mapped_column(BigInteger, default=1)

    network: Mapped[Network] = relationship(back_populates="subnet", lazy="raise")


class Port(Base):
    """One MAC and one address on a network. `ip_address` is null on a network without a subnet.

    `allowed_address_pairs` are additional source addresses for anti-spoofing: objects of `ip_address`, an IPv6 address
    or prefix, and `mac_address`. `ipv4_address` is mapped to the port's address by NAT64. `attached` orders the ports
    of a server. `of_server` marks a port that was created for its server and is deleted with it.
    """

    __tablename__ = "ports"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    network_id: Mapped[str] = mapped_column(ForeignKey("networks.id"), index=True)
    subnet_id: Mapped[str | None] = mapped_column(ForeignKey("subnets.id"), index=True)
    project_id: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(String(255), default="")
    description: Mapped[str] = mapped_column(String(255), default="")
    device_id: Mapped[str] = mapped_column(String(255), default="", index=True)
    device_owner: Mapped[str] = mapped_column(String(255), default="")
    attached: Mapped[int] = mapped_column(BigInteger, default=0)
    of_server: Mapped[bool] = mapped_column(default=False)
    mac_address: Mapped[str] = mapped_column(String(17), unique=True)
    ip_address: Mapped[str | None] = mapped_column(String(39), unique=True)
    allowed_address_pairs: Mapped[list[dict[str, str]]] = mapped_column(Json, default=list)
    ipv4_address: Mapped[str | None] = mapped_column(String(15), unique=True, index=True)
    status: Mapped[str] = mapped_column(String(16), default="DOWN")
    binding_host: Mapped[str | None] = mapped_column(String(255))
    admin_state_up: Mapped[bool] = mapped_column(default=True)
    tags: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    revision_number: Mapped[int] = mapped_column(BigInteger, default=1)


class NetworkQuota(Base):
    """Limits of a project that differ from the defaults; -1 is unlimited, null is the default."""

    __tablename__ = "network_quotas"

    project_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    network: Mapped[int | None]
    subnet: Mapped[int | None]
    port: Mapped[int | None]
    subnetpool: Mapped[int | None]


@event.listens_for(Network, "before_update")
@event.listens_for(Subnet, "before_update")
@event.listens_for(Port, "before_update")
@event.listens_for(SubnetPool, "before_update")
def _count_revision(_mapper: Mapper[Any], _connection: Connection, target: Any) -> None:
    """Increment `revision_number` when a row changes. UPDATE statements outside the unit of work set it themselves."""
    changed = {attribute.key for attribute in inspect(target).attrs if attribute.history.has_changes()}
    if changed - {"cursor", "revision_number"}:
        target.revision_number += 1
