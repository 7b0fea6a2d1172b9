"""Where a server may go: what was asked for, its group, what its flavor asks of aggregates, who has refused it.

What was asked for when it was created is remembered in `aside.PLACING`, for hosts that it goes to later.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from compute_api import system_metadata
from compute_api.flavors.matching import matches
from compute_api.hosts import hosts
from compute_api.hosts.constraints import Preference
from compute_api.models import Aggregate, AggregateHost, Host, Server, ServerGroup
from compute_api.scheduler import claims, server_groups

SCOPE = "aggregate_instance_extra_specs"


def remember(
    server: Server,
    *,
    host: str | None = None,
    forced: bool = False,
    same_host: Sequence[str] = (),
    different_host: Sequence[str] = (),
) -> None:
    """Keep what was asked for: a host, which if `forced` nothing but room decides about, and servers by their ids."""
    wish: dict[str, Any] = {"host": host, "forced": forced}
    wish |= {"same_host": list(same_host), "different_host": list(different_host)}
    if asked := {name: value for name, value in wish.items() if value}:
        system_metadata.put(server, system_metadata.PLACING, asked)


def ask_for(server: Server, host: str) -> None:
    """Somebody wants it on this host."""
    system_metadata.put(
        server, system_metadata.PLACING, {**server.aside.get(system_metadata.PLACING, {}), "host": host}
    )


def refuse(server: Server, host: str, reason: str) -> list[tuple[str, str]]:
    """A host could not do it: the server goes to no such host again; returns all that have refused, and why."""
    wish = server.aside.get(system_metadata.PLACING, {})
    refused = [*wish.get("refused", []), [host, reason]]
    system_metadata.put(server, system_metadata.PLACING, {**wish, "refused": refused})
    return [(name, why) for name, why in refused]


def settled(server: Server) -> None:
    """It runs: no host has refused it, and the one that was asked for once has had it."""
    if wish := system_metadata.take(server, system_metadata.PLACING):
        remember(server, same_host=wish.get("same_host", ()), different_host=wish.get("different_host", ()))


def is_pinned(server: Server) -> bool:
    """Whether somebody asked for the one host that it is on."""
    return bool(server.aside.get(system_metadata.PLACING, {}).get("host"))


def preference(session: Session, server: Server) -> Preference:
    """Where the server may go, as others are where they are now."""
    wish = server.aside.get(system_metadata.PLACING, {})
    refused = [(name, reason) for name, reason in wish.get("refused", ())]
    among = Preference(never=tuple(name for name, _ in refused), because=tuple(refused))
    if host := wish.get("host"):
        among &= Preference(only=(host,), reason=f"host {host} was asked for")
    if wish.get("forced"):
        return among
    if server.group_id:
        group = session.scalar(select(ServerGroup).where(ServerGroup.id == server.group_id))
        if group is not None:
            among &= server_groups.preference(session, group, server.id)
    if same := wish.get("same_host"):
        among &= Preference(only=_hosts_of(session, server, same), reason="the hint same_host names servers elsewhere")
    if different := wish.get("different_host"):
        among &= Preference(
            never=_hosts_of(session, server, different), reason="the hint different_host names servers there"
        )
    return among & _by_aggregates(session, server.flavor.get("extra_specs", {}))


def place(session: Session, now: datetime, server: Server, zone: str | None) -> Host | None:
    """Take room for the server and put it there; None, with the server as it was, when there is none."""
    found = hosts.claim(
        session, now, **claims.held(server), zone=zone, host=None, preference=preference(session, server)
    )
    if found is not None:
        server.host, server.availability_zone = found.name, found.zone
    return found


def why_not(session: Session, now: datetime, server: Server, zone: str | None) -> str:
    """What was missing."""
    among = preference(session, server)
    return hosts.why_not(session, now, **claims.held(server), zone=zone, preference=among)


def _hosts_of(session: Session, server: Server, server_ids: Sequence[str]) -> tuple[str, ...]:
    """The hosts of these servers; those of other projects count as unknown, so that hints reveal nothing of them."""
    query = select(Server.host).where(
        Server.id.in_(server_ids),
        Server.project_id == server.project_id,
        Server.deleted.is_(False),
        Server.host.is_not(None),
    )
    return tuple(sorted({host for host in session.scalars(query) if host}))


def _by_aggregates(session: Session, extra_specs: dict[str, str]) -> Preference:
    """Hosts whose aggregates have what the flavor asks for, by keys with the scope of aggregates or with none."""
    wanted = {}
    for key, value in extra_specs.items():
        scope, colon, name = key.partition(":")
        if not colon or scope == SCOPE:
            wanted[name if colon else key] = value
    if not wanted:
        return Preference()
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
    return Preference(only=fitting, reason="its aggregates lack what the flavor asks for")
