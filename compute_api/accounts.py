"""What a server holds of its project's quota and of its host, and how that changes while it is resized."""

from collections.abc import Iterator
from contextlib import contextmanager
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


def on_hosts(server: Server) -> dict[str, Room]:
    """What the server holds on which host: on its own, on the one that it is moving to, and on the one that it came
    from as long as it may go back."""
    if server.host is None:
        return {}
    resize, migration = server.aside.get(aside.RESIZE), server.aside.get(aside.MIGRATION)
    if migration:
        here, there = server.flavor, server.flavor
        if resize and resize.get("given_back"):
            there = resize["flavor"]
        elif resize:
            here = resize["flavor"]
        return {server.host: room(here), migration["to"]: room(there)}
    if resize and resize.get("host"):
        return {server.host: room(server.flavor), resize["host"]: room(resize["flavor"])}
    return {server.host: held(server)}


@contextmanager
def changing(session: Session, server: Server) -> Iterator[None]:
    """What the server holds less of its quota and of hosts after the block is given back."""
    quota, rooms = held(server), on_hosts(server)
    yield
    less = _minus(quota, held(server))
    if less["vcpus"] or less["memory_mib"]:
        quotas.add(session, server.project_id, cores=-less["vcpus"], ram=-less["memory_mib"])
    after = on_hosts(server)
    for host, before in rooms.items():
        given_back = _minus(before, after[host]) if host in after else before
        if any(given_back.values()):
            hosts.release(session, host, **given_back)


def _minus(one: Room, other: Room) -> Room:
    return Room(
        vcpus=one["vcpus"] - other["vcpus"],
        memory_mib=one["memory_mib"] - other["memory_mib"],
        disk_gib=one["disk_gib"] - other["disk_gib"],
    )


def grow(session: Session, now: datetime, server: Server, before: Room) -> bool:
    """Take what the server holds more than `before`, of the quota and of its host. False when that has no room, with
    the quota taken. Raises QuotaExceeded."""
    more = _minus(held(server), before)
    used = session.get_one(ProjectUsage, server.project_id, with_for_update=True, populate_existing=True)
    limits = quotas.limits(session, server.project_id)
    for name, need, have in (("cores", more["vcpus"], used.cores), ("ram", more["memory_mib"], used.ram)):
        if need > 0 and 0 <= limits[name] < have + need:
            raise errors.QuotaExceeded(
                f"Quota exceeded for {name}: Requested {need}, but already used {have} of {limits[name]} {name}"
            )
    quotas.add(session, server.project_id, cores=more["vcpus"], ram=more["memory_mib"])
    return not any(more.values()) or hosts.claim(session, now, **more, zone=None, host=server.host) is not None


def settle(session: Session, server: Server) -> None:
    """The resize is over: the server holds what its flavor says and nothing more."""
    with changing(session, server):
        aside.take(server, aside.RESIZE)


def release(session: Session, server: Server) -> None:
    """The server is gone: all of it is free again."""
    holds = held(server)
    quotas.add(session, server.project_id, instances=-1, cores=-holds["vcpus"], ram=-holds["memory_mib"])
    for host, taken in on_hosts(server).items():
        hosts.release(session, host, **taken)
