"""What a server holds of its project's quota and of its host, and how that changes while it is resized."""

from datetime import datetime
from typing import Any, TypedDict

from sqlalchemy.orm import Session

from app import errors
from compute_api import aside, hosts, quotas
from compute_api.models import ProjectUsage, Server


class Room(TypedDict):
    """What a server takes of its host."""

    vcpus: int
    memory_mib: int
    disk_gib: int


def room(flavor: dict[str, Any]) -> Room:
    """What a flavor takes of a host: swap counts as disk, in whole GiB."""
    disk = flavor["disk"] + flavor["ephemeral"] + -(-flavor["swap"] // 1024)
    return Room(vcpus=flavor["vcpus"], memory_mib=flavor["ram"], disk_gib=disk)


def held(server: Server) -> Room:
    """What the server holds: while it is resized, the larger of both flavors."""
    now = room(server.flavor)
    resize = server.aside.get(aside.RESIZE)
    if resize is None:
        return now
    other = room(resize["flavor"])
    return Room(
        vcpus=max(now["vcpus"], other["vcpus"]),
        memory_mib=max(now["memory_mib"], other["memory_mib"]),
        disk_gib=max(now["disk_gib"], other["disk_gib"]),
    )


def _minus(one: Room, other: Room) -> Room:
    return Room(
        vcpus=one["vcpus"] - other["vcpus"],
        memory_mib=one["memory_mib"] - other["memory_mib"],
        disk_gib=one["disk_gib"] - other["disk_gib"],
    )


def grow(session: Session, now: datetime, server: Server, before: Room) -> None:
    """Take what the server holds more than `before`. Raises QuotaExceeded, or BadRequest when its host is full."""
    more = _minus(held(server), before)
    used = session.get_one(ProjectUsage, server.project_id, with_for_update=True, populate_existing=True)
    limits = quotas.limits(session, server.project_id)
    for name, need, have in (("cores", more["vcpus"], used.cores), ("ram", more["memory_mib"], used.ram)):
        if need > 0 and 0 <= limits[name] < have + need:
            raise errors.QuotaExceeded(
                f"Quota exceeded for {name}: Requested {need}, but already used {have} of {limits[name]} {name}"
            )
    quotas.add(session, server.project_id, cores=more["vcpus"], ram=more["memory_mib"])
    if server.host and any(more.values()) and hosts.claim(session, now, **more, zone=None, host=server.host) is None:
        raise errors.BadRequest(hosts.why_not(session, now, **more, zone=None))


def settle(session: Session, server: Server) -> None:
    """The resize is over: the server holds what its flavor says and nothing more."""
    before = held(server)
    aside.take(server, aside.RESIZE)
    less = _minus(before, room(server.flavor))
    quotas.add(session, server.project_id, cores=-less["vcpus"], ram=-less["memory_mib"])
    if server.host:
        hosts.release(session, server.host, **less)


def release(session: Session, server: Server) -> None:
    """The server is gone: all of it is free again."""
    holds = held(server)
    quotas.add(session, server.project_id, instances=-1, cores=-holds["vcpus"], ram=-holds["memory_mib"])
    if server.host:
        hosts.release(session, server.host, **holds)
