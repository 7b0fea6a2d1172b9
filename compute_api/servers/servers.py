"""Servers: lookup, state checks, start of actions and deletion, each in the caller's transaction.

Completion of actions: `operations.completion`.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, select, update
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from compute_api import quotas
from compute_api.hosts import hosts
from compute_api.models import Flavor, Server
from compute_api.operations import operations
from compute_api.operations.completion import image_reference, mark_deleted
from compute_api.states import DELETE, Action, TaskState
from image_api import images
from image_api.models import Image


def find(session: Session, caller: Caller, server_id: str, *, deleted: bool = False) -> Server:
    """Return one of the caller's servers; admins find servers of all projects. Raises NotFound.

    `deleted` includes deleted servers.
    """
    query = _by_id_query(own=not caller.is_admin, deleted=deleted)
    if (server := session.scalar(query, {"server": server_id, "project": caller.project})) is None:
        raise errors.NotFound(f"Instance {server_id} could not be found.")
    return server


@cache
def _by_id_query(*, own: bool, deleted: bool) -> Select[Server]:
    query = select(Server).where(Server.id == bindparam("server"))
    if own:
        query = query.where(Server.project_id == bindparam("project"))
    return query if deleted else query.where(Server.deleted.is_(False))


def start_action(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    action: Action,
    request_id: str,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Claim an action and queue its operation. Raises Conflict when the server's state does not allow it."""
    claim_action(session, now, caller, server, action, request_id)
    operations.queue(session, now, server, action.task, request_id, arguments or {})


def claim_action(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    action: Action,
    request_id: str,
    *,
    recorded_as: str | None = None,
) -> None:
    """Check the server's state and set its task state in one UPDATE; queues no operation. Raises Conflict.

    `recorded_as` is the name in the server's list of actions when it differs from the action's name.
    """
    check_lock(caller, server)
    statement = update(Server).where(
        Server.id == server.id, Server.deleted.is_(False), Server.vm_state.in_(action.allowed_from)
    )
    if action.interrupts:
        statement = statement.where(Server.task_state.is_(None) | Server.task_state.in_(action.interrupts))
    else:
        statement = statement.where(Server.task_state.is_(None))
    statement = statement.values(task_state=action.task, generation=Server.generation + 1, updated_at=now)
    statement = statement.returning(Server).execution_options(synchronize_session=False, populate_existing=True)
    if session.scalar(statement) is None:
        session.refresh(server)
        if server.vm_state in action.allowed_from:
            state = f"task_state {server.task_state}"
        else:
            state = f"vm_state {server.vm_state}"
        raise errors.Conflict(f"Cannot '{action.name}' instance {server.id} while it is in {state}")
    check_host(server)
    operations.begin_action(session, now, server, recorded_as or action.name, request_id, caller.user_id)


def delete(session: Session, now: datetime, caller: Caller, server: Server, request_id: str) -> None:
    """Delete the server in any state. Raises Conflict when it is locked.

    Its row is marked deleted when the host has removed the machine, or at once when it has no host or the host is down;
    such a host removes the machine when it reconciles.
    """
    check_lock(caller, server)
    if server.task_state == TaskState.DELETING:
        return
    if server.host is None or not hosts.is_alive(session, now, server.host):
        operations.begin_action(session, now, server, DELETE.name, request_id, caller.user_id)
        operations.end_action(session, now, server.id, request_id)
        mark_deleted(session, now, server)
        return
    start_action(session, now, caller, server, DELETE, request_id)


def check_host(server: Server) -> None:
    """Raise Conflict for a server without a host: its build found no room, or it is shelved."""
    if server.host is None:
        raise errors.Conflict(f"Instance {server.id} is not ready")


def check_lock(caller: Caller, server: Server) -> None:
    """Raise Conflict when the server is locked and the caller is no admin."""
    if server.locked and not caller.is_admin:
        raise errors.Conflict(f"Instance {server.id} is locked")


def find_usable_image(session: Session, caller: Caller, image_id: str, flavor: Flavor) -> Image:
    """Return an image that a server of the flavor can boot from. Raises BadRequest with Nova's message."""
    try:
        image = images.find_visible(session, caller, image_id)
    except errors.NotFound:
        raise errors.BadRequest(f"Can not find requested image: {image_id}") from None
    if image.status != "active":
        raise errors.BadRequest(f"Image {image.id} is not active.")
    if flavor.ram < (image.min_ram or 0):
        raise errors.BadRequest("Flavor's memory is too small for requested image.")
    if flavor.disk:
        available = flavor.disk << 30
        required = max((image.min_disk or 0) << 30, 0 if image.stored_format == "iso" else image.virtual_size or 0)
        if available < required:
            raise errors.BadRequest(
                f"Flavor's disk is too small for requested image. Flavor disk is {available} bytes, "
                f"image is {required} bytes."
            )
    return image


def image_copy(image: Image) -> dict[str, Any]:
    """Return the copy of the image's fields that a server keeps."""
    return {
        "ref": image_reference(image),
        "name": image.name,
        "min_ram": image.min_ram,
        "min_disk": image.min_disk,
    }


def flavor_copy(flavor: Flavor) -> dict[str, Any]:
    """Return the copy of the flavor that a server keeps: RAM and swap in MiB, disks in GiB."""
    return {
        "id": flavor.id,
        "name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram": flavor.ram,
        "disk": flavor.disk,
        "ephemeral": flavor.ephemeral,
        "swap": flavor.swap,
        "extra_specs": flavor.extra_specs,
    }


def check_metadata_quota(session: Session, caller: Caller, metadata: Mapping[str, str]) -> None:
    """Raise QuotaExceeded for more metadata items than the project's quota allows."""
    quotas.check_metadata(quotas.limits(session, caller.project), metadata)


def host_id(server: Server) -> str:
    """Return a hash of project and host: equal for a project's servers on one host, opaque otherwise."""
    if not server.host:
        return ""
    return hashlib.sha224(f"{server.project_id}{server.host}".encode()).hexdigest()
