"""Resource claims of a server on its project's quota and its hosts, also during resize and migration."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypedDict

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from compute_api import quotas, system_metadata
from compute_api.hosts import hosts
from compute_api.models import ProjectUsage, Server


class Resources(TypedDict):
    """Capacity of a host."""

    vcpus: int
    memory_mib: int
    disk_gib: int


def flavor_resources(flavor: dict[str, Any]) -> Resources:
    """Return a flavor's resources. Swap counts as disk, rounded up to whole GiB."""
    disk = flavor["disk"] + flavor["ephemeral"] + -(-flavor["swap"] // 1024)
    return Resources(vcpus=flavor["vcpus"], memory_mib=flavor["ram"], disk_gib=disk)


def held_resources(server: Server) -> Resources:
    """Return the server's claim on the quota: during a resize the larger of both flavors."""
    now = flavor_resources(server.flavor)
    resize = system_metadata.RESIZE.find(server)
    if resize is None:
        return now
    other = flavor_resources(resize["flavor"])
    return Resources(
        vcpus=max(now["vcpus"], other["vcpus"]),
        memory_mib=max(now["memory_mib"], other["memory_mib"]),
        disk_gib=max(now["disk_gib"], other["disk_gib"]),
    )


def resources_by_host(server: Server) -> dict[str, Resources]:
    """Return the server's claims by host: its own, the migration's destination, and the source of an unconfirmed
    resize."""
    if server.host is None:
        return {}
    resize, migration = (
        system_metadata.RESIZE.find(server),
        system_metadata.MIGRATION.find(server),
    )
    if migration:
        here, there = server.flavor, server.flavor
        if resize and resize.get("given_back"):
            there = resize["flavor"]
        elif resize:
            here = resize["flavor"]
        return {server.host: flavor_resources(here), migration["to"]: flavor_resources(there)}
    if resize and resize.get("host"):
        return {server.host: flavor_resources(server.flavor), resize["host"]: flavor_resources(resize["flavor"])}
    return {server.host: held_resources(server)}


@contextmanager
def release_difference(session: Session, server: Server) -> Iterator[None]:
    """Release what the server claims less, of its quota and on hosts, after the block than before it."""
    quota, rooms = held_resources(server), resources_by_host(server)
    yield
    less = _subtract(quota, held_resources(server))
    if less["vcpus"] or less["memory_mib"]:
        quotas.add(session, server.project_id, cores=-less["vcpus"], ram=-less["memory_mib"])
    after = resources_by_host(server)
    for host, before in rooms.items():
        given_back = _subtract(before, after[host]) if host in after else before
        if any(given_back.values()):
            hosts.release(session, host, **given_back)


def _subtract(one: Resources, other: Resources) -> Resources:
    return Resources(
        vcpus=one["vcpus"] - other["vcpus"],
        memory_mib=one["memory_mib"] - other["memory_mib"],
        disk_gib=one["disk_gib"] - other["disk_gib"],
    )


def claim_growth(session: Session, now: datetime, server: Server, before: Resources) -> bool:
    """Claim what the server needs more than `before` of the quota and its host.

    Returns False, with the quota claimed, when the host has no room. Raises QuotaExceeded.
    """
    more = _subtract(held_resources(server), before)
    used = session.get_one(ProjectUsage, server.project_id, with_for_update=True, populate_existing=True)
    limits = quotas.limits(session, server.project_id)
    for name, need, have in (("cores", more["vcpus"], used.cores), ("ram", more["memory_mib"], used.ram)):
        if need > 0 and 0 <= limits[name] < have + need:
            raise errors.QuotaExceeded(
                f"Quota exceeded for {name}: Requested {need}, but already used {have} of {limits[name]} {name}"
            )
    _check_user_growth(session, server, more)
    quotas.add(session, server.project_id, cores=more["vcpus"], ram=more["memory_mib"])
    return not any(more.values()) or hosts.claim(session, now, **more, zone=None, host=server.host) is not None


def user_usage(session: Session, project_id: str, user_id: str) -> dict[str, int]:
    """Return the instances, cores and RAM (MiB) of the user's servers in the project."""
    own = (Server.project_id == project_id, Server.user_id == user_id, Server.deleted.is_(False))
    holds = [held_resources(server) for server in session.scalars(select(Server).where(*own))]
    return {
        "instances": len(holds),
        "cores": sum(one["vcpus"] for one in holds),
        "ram": sum(one["memory_mib"] for one in holds),
    }


def within_user_limits(
    session: Session, project_id: str, user_id: str, flavor: dict[str, Any], *, count: int, at_least: int
) -> int:
    """Return how many of `count` new servers the user's own limits allow, `at_least` or more. Raises QuotaExceeded.

    The project's quota is claimed before, so that requests of one project follow each other.
    """
    limits = quotas.user_limits(session, project_id, user_id)
    each = {name: need for name, need in _needs(flavor).items() if limits.get(name, -1) >= 0 and need > 0}
    if not each:
        return count
    used = user_usage(session, project_id, user_id)
    fits = min(count, *((limits[name] - used[name]) // need for name, need in each.items()))
    if fits < max(at_least, 1):
        quotas.raise_exceeded(used, limits, each, count)
    return fits


def _needs(flavor: dict[str, Any]) -> dict[str, int]:
    return {"instances": 1, "cores": flavor["vcpus"], "ram": flavor["ram"]}


def _check_user_growth(session: Session, server: Server, more: Resources) -> None:
    """Raise QuotaExceeded when the user's own limits leave no room. `server` is counted with its larger flavor."""
    limits = quotas.user_limits(session, server.project_id, server.user_id)
    growth = {"cores": more["vcpus"], "ram": more["memory_mib"]}
    if not any(need > 0 and limits.get(name, -1) >= 0 for name, need in growth.items()):
        return
    session.flush()
    used = user_usage(session, server.project_id, server.user_id)
    for name, need in growth.items():
        have = used[name] - need
        if need > 0 and 0 <= limits.get(name, -1) < have + need:
            raise errors.QuotaExceeded(
                f"Quota exceeded for {name}: Requested {need}, but already used {have} of {limits[name]} {name}"
            )


def end_resize(session: Session, server: Server) -> None:
    """End a resize: release everything beyond the server's current flavor."""
    with release_difference(session, server):
        system_metadata.RESIZE.pop(server)


def release(session: Session, server: Server) -> None:
    """Release all claims of a deleted server."""
    holds = held_resources(server)
    quotas.add(session, server.project_id, instances=-1, cores=-holds["vcpus"], ram=-holds["memory_mib"])
    for host, taken in resources_by_host(server).items():
        hosts.release(session, host, **taken)


def usage(session: Session, project_id: str, user_id: str | None) -> dict[str, int]:
    """Return the resources that a project uses, or with `user_id` those of a user in it."""
    return quotas.usage(session, project_id) if user_id is None else user_usage(session, project_id, user_id)


def check_limits(session: Session, project_id: str, user_id: str | None, limits: Mapping[str, int]) -> None:
    """Raise BadRequest for limits below the usage, or for a user's limits above the project's."""
    used = usage(session, project_id, user_id)
    largest = {} if user_id is None else quotas.largest_user_limits(session, project_id, user_id)
    for name, limit in limits.items():
        if 0 <= limit < used.get(name, 0):
            raise errors.BadRequest(
                f"Quota limit {limit} for {name} must be greater than or equal to already used and reserved "
                f"{used[name]}."
            )
        if (maximum := largest.get(name, -1)) >= 0 and (limit < 0 or limit > maximum):
            raise errors.BadRequest(f"Quota limit {limit} for {name} must be less than or equal to {maximum}.")
