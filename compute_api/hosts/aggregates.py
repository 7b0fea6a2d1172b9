"""Host aggregates. An aggregate with `availability_zone` in its metadata is a zone."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import uuid4

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import errors
from compute_api.hosts import hosts
from compute_api.models import Aggregate, AggregateHost, Host, Server

ZONE = "availability_zone"


def find(session: Session, aggregate_id: int) -> Aggregate:
    """Return an aggregate by id. Raises NotFound."""
    if (found := session.get(Aggregate, aggregate_id)) is None:
        raise errors.NotFound(f"Aggregate {aggregate_id} could not be found.")
    return found


def list_aggregates(session: Session) -> list[Aggregate]:
    """Return all aggregates in creation order."""
    return list(session.scalars(select(Aggregate).order_by(Aggregate.id)))


def hosts_by_aggregate(session: Session, aggregate_ids: Sequence[int]) -> dict[int, list[str]]:
    """Return the names of each aggregate's hosts. One query."""
    found: dict[int, list[str]] = {}
    query = select(AggregateHost).where(AggregateHost.aggregate_id.in_(aggregate_ids)).order_by(AggregateHost.host)
    for row in session.scalars(query):
        found.setdefault(row.aggregate_id, []).append(row.host)
    return found


def create(session: Session, now: datetime, name: str, zone: str | None) -> Aggregate:
    """Create an aggregate. Raises Conflict when the name is taken."""
    made = Aggregate(
        uuid=str(uuid4()), name=name, metadata_={ZONE: zone} if zone else {}, created_at=now, updated_at=None
    )
    try:
        with session.begin_nested():
            session.add(made)
    except IntegrityError:
        raise errors.Conflict(f"Aggregate {name} already exists.") from None
    return made


def update_aggregate(
    session: Session, now: datetime, aggregate: Aggregate, default_zone: str, changes: Mapping[str, str | None]
) -> None:
    """Set `name` and `availability_zone`. Raises Conflict when the name is taken or servers would change their zone."""
    if (name := changes.get("name")) is not None and name != aggregate.name:
        if session.scalar(select(Aggregate.id).where(Aggregate.name == name)) is not None:
            raise errors.Conflict(f"Aggregate {name} already exists.")
        aggregate.name = name
    aggregate.updated_at = now
    if ZONE in changes:
        set_metadata(session, now, aggregate, default_zone, {ZONE: changes[ZONE]})


def set_metadata(
    session: Session, now: datetime, aggregate: Aggregate, default_zone: str, changes: Mapping[str, str | None]
) -> None:
    """Add, replace and, with None, remove items. Raises Conflict when servers would change their zone."""
    metadata = {**aggregate.metadata_, **changes}
    aggregate.metadata_ = {name: value for name, value in metadata.items() if value is not None}
    aggregate.updated_at = now
    _set_zones(session, hosts_by_aggregate(session, [aggregate.id]).get(aggregate.id, []), default_zone)


def delete(session: Session, aggregate: Aggregate) -> None:
    """Delete an aggregate. Raises BadRequest while it has hosts."""
    if hosts_by_aggregate(session, [aggregate.id]):
        raise errors.BadRequest(
            f"Cannot perform action 'delete' on aggregate {aggregate.id}. Reason: Host aggregate is not empty."
        )
    session.delete(aggregate)


def add_host(session: Session, now: datetime, aggregate: Aggregate, name: str, default_zone: str) -> None:
    """Add a host. Raises NotFound for an unknown host, Conflict when it is a member already or in another zone."""
    host = hosts.find(session, name)
    if session.get(AggregateHost, (aggregate.id, host.name)) is not None:
        raise errors.Conflict(f"Aggregate {aggregate.id} already has host {host.name}.")
    zone = aggregate.metadata_.get(ZONE)
    if zone and (other := hosts.aggregate_zone(session, host.name)) not in (None, zone):
        raise errors.Conflict(
            f"Cannot perform action 'add_host_to_aggregate' on aggregate {aggregate.id}. "
            f"Reason: Host {host.name} already in availability zone {other}."
        )
    session.add(AggregateHost(aggregate_id=aggregate.id, host=host.name))
    aggregate.updated_at = now
    session.flush()
    _set_zones(session, [host.name], default_zone)


def remove_host(session: Session, now: datetime, aggregate: Aggregate, name: str, default_zone: str) -> None:
    """Remove a host. Raises NotFound when it is not a member."""
    row = AggregateHost.aggregate_id == aggregate.id, AggregateHost.host == name
    if not session.execute(sql_delete(AggregateHost).where(*row).returning(AggregateHost.host)).all():
        raise errors.NotFound(f"Aggregate {aggregate.id} has no host {name}.")
    aggregate.updated_at = now
    _set_zones(session, [name], default_zone)


def _set_zones(session: Session, names: Sequence[str], default_zone: str) -> None:
    """Update the zone of hosts. Raises Conflict for a host with servers, whose zone would change."""
    session.flush()
    for name in names:
        zone = hosts.aggregate_zone(session, name) or default_zone
        host = session.scalar(select(Host).where(Host.name == name))
        if host is None or host.zone == zone:
            continue
        servers = select(func.count()).select_from(Server).where(Server.host == name, Server.deleted.is_(False))
        if session.scalar(servers):
            raise errors.Conflict(
                f"Cannot change the availability zone of host {name}. Reason: One or more hosts contain instances in "
                "this zone."
            )
        session.execute(update(Host).where(Host.name == name).values(zone=zone))
