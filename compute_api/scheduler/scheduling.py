"""Scheduling: selects a host by hints, server group, aggregates and hosts that failed the build.

Hints of the create request are kept in the server's system metadata, for later scheduling.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from compute_api import system_metadata
from compute_api.flavors.matching import matches
from compute_api.hosts import hosts
from compute_api.hosts.constraints import HostConstraints
from compute_api.models import Aggregate, AggregateHost, Host, Server, ServerGroup
from compute_api.scheduler import claims, server_groups

SCOPE = "aggregate_instance_extra_specs"


def store_hints(
    server: Server,
    *,
    host: str | None = None,
    forced: bool = False,
    same_host: Sequence[str] = (),
    different_host: Sequence[str] = (),
) -> None:
    """Store scheduling hints: a host, which `forced` exempts from all constraints but capacity, and ids of other
    servers."""
    hints = system_metadata.SchedulingHints()
    if host:
        hints["host"] = host
    if forced:
        hints["forced"] = forced
    if same_host:
        hints["same_host"] = list(same_host)
    if different_host:
        hints["different_host"] = list(different_host)
    if hints:
        system_metadata.PLACING.set(server, hints)


def request_host(server: Server, host: str) -> None:
    """Store a request for this host."""
    hints = system_metadata.PLACING.find(server) or system_metadata.SchedulingHints()
    system_metadata.PLACING.set(server, {**hints, "host": host})


def add_failed_host(server: Server, host: str, reason: str) -> list[tuple[str, str]]:
    """Add a host to those that failed the build; returns all (host, reason) pairs."""
    hints = system_metadata.PLACING.find(server) or system_metadata.SchedulingHints()
    refused = [*hints.get("refused", []), [host, reason]]
    system_metadata.PLACING.set(server, {**hints, "refused": refused})
    return [(name, why) for name, why in refused]


def clear_hints(server: Server) -> None:
    """Clear the requested host and the failed hosts after a successful boot."""
    if hints := system_metadata.PLACING.pop(server):
        store_hints(server, same_host=hints.get("same_host", ()), different_host=hints.get("different_host", ()))


def is_pinned(server: Server) -> bool:
    """Return whether a host was requested."""
    return bool((system_metadata.PLACING.find(server) or {}).get("host"))


def constraints(session: Session, server: Server) -> HostConstraints:
    """Return the server's host constraints at this moment."""
    hints = system_metadata.PLACING.find(server) or system_metadata.SchedulingHints()
    refused = [(name, reason) for name, reason in hints.get("refused", ())]
    among = HostConstraints(forbidden=tuple(name for name, _ in refused), host_reasons=tuple(refused))
    if host := hints.get("host"):
        among &= HostConstraints(required=(host,), reason=f"host {host} was asked for")
    if hints.get("forced"):
        return among
    if server.group_id:
        group = session.scalar(select(ServerGroup).where(ServerGroup.id == server.group_id))
        if group is not None:
            among &= server_groups.constraints(session, group, server.id)
    if same := hints.get("same_host"):
        among &= HostConstraints(
            required=_hosts_of_servers(session, server, same), reason="the hint same_host names servers elsewhere"
        )
    if different := hints.get("different_host"):
        among &= HostConstraints(
            forbidden=_hosts_of_servers(session, server, different),
            reason="the hint different_host names servers there",
        )
    return among & _aggregate_constraints(session, server.flavor.get("extra_specs", {}))


def claim_host(session: Session, now: datetime, server: Server, zone: str | None) -> Host | None:
    """Claim a host for the server and assign it; returns None, with the server unchanged, when no host has room."""
    found = hosts.claim(
        session, now, **claims.held_resources(server), zone=zone, host=None, constraints=constraints(session, server)
    )
    if found is not None:
        server.host, server.availability_zone = found.name, found.zone
    return found


def explain_no_host(session: Session, now: datetime, server: Server, zone: str | None) -> str:
    """Return the "No valid host" message for the server."""
    among = constraints(session, server)
    return hosts.explain_no_host(session, now, **claims.held_resources(server), zone=zone, constraints=among)


def _hosts_of_servers(session: Session, server: Server, server_ids: Sequence[str]) -> tuple[str, ...]:
    """Return the hosts of these servers. Servers of other projects count as unknown, so that hints do not reveal
    them."""
    query = select(Server.host).where(
        Server.id.in_(server_ids),
        Server.project_id == server.project_id,
        Server.deleted.is_(False),
        Server.host.is_not(None),
    )
    return tuple(sorted({host for host in session.scalars(query) if host}))


def _aggregate_constraints(session: Session, extra_specs: dict[str, str]) -> HostConstraints:
    """Return hosts whose aggregates match the flavor's extra specs, unscoped or in the aggregate scope."""
    wanted = {}
    for key, value in extra_specs.items():
        scope, colon, name = key.partition(":")
        if not colon or scope == SCOPE:
            wanted[name if colon else key] = value
    if not wanted:
        return HostConstraints()
    found: dict[str, dict[str, set[str]]] = {}
    query = select(AggregateHost.host, Aggregate.metadata_).join(Aggregate, Aggregate.id == AggregateHost.aggregate_id)
    for host, metadata in session.execute(query):
        known = found.setdefault(host, {})
        for key, value in metadata.items():
            known.setdefault(key, set()).update(one.strip() for one in value.split(","))
    fitting = tuple(
        sorted(
            host
            for host, known in found.items()
            if all(any(matches(value, what) for value in known.get(key, ())) for key, what in wanted.items())
        )
    )
    return HostConstraints(required=fitting, reason="its aggregates lack what the flavor asks for")
