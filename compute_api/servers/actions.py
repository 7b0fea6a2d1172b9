"""Server actions that modify an instance: rebuild, resize, rescue, shelve, snapshot, reset-state."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from compute_api import keypairs, quotas, system_metadata
from compute_api.faults import fault
from compute_api.flavors import extra_specs, flavors, history
from compute_api.models import Flavor, Server
from compute_api.operations import operations, snapshots
from compute_api.operations.completion import image_reference
from compute_api.operations.machine_spec import disks
from compute_api.scheduler import claims, scheduling
from compute_api.servers import migrations, servers
from compute_api.states import (
    BACKUP,
    CONFIRM_RESIZE,
    CREATE_IMAGE,
    REBUILD,
    RESCUE,
    RESIZE,
    REVERT_RESIZE,
    SHELVE,
    UNRESCUE,
    UNSHELVE,
    PowerState,
    VmState,
)
from network_api.resources import ports

STAY_STOPPED = {"start": False, "then": VmState.STOPPED, "power_state": PowerState.SHUTDOWN}
"""Operation arguments that leave a server shut off, as it was before the action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """Fields of a rebuild request. `changes` maps attributes of the server to values; None clears an attribute."""

    image_id: str
    admin_pass: str | None = None
    metadata: dict[str, str] | None = None
    key_name: str | None = None
    has_key_name: bool = False
    preserve_ephemeral: bool = False
    files: tuple[dict[str, str], ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """Fields of a createBackup request. `rotation` is the number of backups of the type to keep."""

    name: str
    metadata: Mapping[str, str]
    backup_type: str
    rotation: int


def rebuild(session: Session, now: datetime, caller: Caller, server: Server, request: Rebuild, request_id: str) -> str:
    """Recreate the server's disks from an image; ports and addresses are kept. Returns the new password."""
    was_stopped = server.vm_state == VmState.STOPPED
    names = [disk.name for disk in disks(server)]
    keep = [name for name in names if name.startswith("ephemeral")] if request.preserve_ephemeral else []
    servers.start_action(
        session, now, caller, server, REBUILD, request_id, {"keep": keep, **(STAY_STOPPED if was_stopped else {})}
    )
    try:
        image = servers.find_usable_image(session, caller, request.image_id, _flavor_limits(server))
    except errors.BadRequest as error:
        if error.message.startswith("Can not find"):
            raise errors.BadRequest("Cannot find image for rebuild") from None
        raise
    if request.metadata is not None:
        servers.check_metadata_quota(session, caller, request.metadata)
        server.metadata_ = request.metadata
    system_metadata.FILES.pop(server)
    if request.files:
        quotas.check_files(quotas.limits(session, server.project_id), request.files)
        system_metadata.FILES.set(server, list(request.files))
    if request.has_key_name:
        server.key = _find_key(session, server.user_id, request.key_name) if request.key_name else {}
    for name, value in request.changes.items():
        setattr(server, name, value)
    server.image, server.image_id = servers.image_copy(image), image.id
    system_metadata.ROOT_IMAGE.pop(server)
    server.admin_pass = request.admin_pass or secrets.token_urlsafe(9)
    server.fault = {}
    return server.admin_pass


def resize(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    flavor_id: str,
    request_id: str,
    *,
    disk_config: str,
) -> None:
    """Change the server's flavor, to be confirmed or reverted. Raises BadRequest, Conflict.

    Disks cannot shrink. The server moves to another host when its own has no room for the flavor.
    """
    was_stopped = server.vm_state == VmState.STOPPED
    servers.claim_action(session, now, caller, server, RESIZE, request_id)
    try:
        flavor = flavors.find(session, caller, flavor_id)
    except errors.NotFound as error:
        raise errors.BadRequest(error.message) from None
    if flavor.id == server.flavor_id:
        raise errors.BadRequest("When resizing, instances must change flavor!")
    extra_specs.check_supported(flavor.extra_specs, flavor.vcpus)
    if flavor.ram < (server.image.get("min_ram") or 0):
        raise errors.BadRequest("Flavor's memory is too small for requested image.")
    after = servers.flavor_copy(flavor)
    for name in ("disk", "ephemeral", "swap"):
        if after[name] < server.flavor[name]:
            raise errors.BadRequest(
                f"Server disk was unable to be resized because: {name} cannot shrink "
                f"from {server.flavor[name]} to {after[name]}."
            )
    migrations.confirm_abandoned_resize(session, now, server, request_id)
    before = claims.held_resources(server)
    system_metadata.RESIZE.set(
        server,
        {"flavor": server.flavor, "flavor_id": server.flavor_id, "stopped": was_stopped},
    )
    history.record_old_flavor(session, now, server)
    server.flavor, server.flavor_id, server.disk_config = after, flavor.id, disk_config
    if not claims.claim_growth(session, now, server, before):
        migrations.resize_to_other_host(session, now, caller, server, request_id)
        return
    arguments = {"start": False, "power_state": PowerState.SHUTDOWN} if was_stopped else {}
    operations.queue(session, now, server, RESIZE.task, request_id, arguments)
    migrations.record_local_resize(session, now, caller, server, request_id)


def confirm_resize(session: Session, now: datetime, caller: Caller, server: Server, request_id: str) -> None:
    """Keep the new flavor and discard the old disks."""
    stopped = server.power_state == PowerState.SHUTDOWN
    servers.start_action(session, now, caller, server, CONFIRM_RESIZE, request_id, STAY_STOPPED if stopped else {})


def revert_resize(session: Session, now: datetime, caller: Caller, server: Server, request_id: str) -> None:
    """Restore the old flavor and the old disks, on the old host."""
    before = system_metadata.RESIZE.find(server)
    stopped = bool(before and before["stopped"])
    servers.claim_action(session, now, caller, server, REVERT_RESIZE, request_id)
    arguments: dict[str, Any] = STAY_STOPPED if stopped else {}
    if before:
        reverted: system_metadata.Resize = {**before, "flavor": server.flavor, "flavor_id": server.flavor_id}
        history.record_old_flavor(session, now, server)
        server.flavor, server.flavor_id = before["flavor"], before["flavor_id"]
        system_metadata.RESIZE.set(server, reverted)
    if before and before.get("host"):
        migrations.revert_to_source_host(session, now, server, request_id, arguments)
    else:
        operations.queue(session, now, server, REVERT_RESIZE.task, request_id, arguments)


def rescue(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    request_id: str,
    *,
    image_id: str | None,
    admin_pass: str | None,
) -> str:
    """Boot the server from a rescue image with its own disks attached. Returns the password."""
    servers.start_action(session, now, caller, server, RESCUE, request_id)
    any_size = Flavor(ram=server.flavor["ram"], disk=0)
    image = servers.find_usable_image(session, caller, image_id or server.image_id, any_size)
    system_metadata.RESCUE.set(server, {"image": image_reference(image)})
    server.admin_pass = admin_pass or secrets.token_urlsafe(9)
    return server.admin_pass


def unrescue(session: Session, now: datetime, caller: Caller, server: Server, request_id: str) -> None:
    """Boot the server from its own root disk."""
    servers.start_action(session, now, caller, server, UNRESCUE, request_id)


def create_image(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    name: str,
    metadata: Mapping[str, str],
    request_id: str,
) -> str:
    """Create an image of the root disk. Returns its id; the image is active when the host has uploaded it."""
    servers.check_metadata_quota(session, caller, dict(metadata))
    image = snapshots.create_image(session, now, caller, server, name, metadata)
    arguments = {"image_id": image.id, "owner": image.owner}
    servers.start_action(session, now, caller, server, CREATE_IMAGE, request_id, arguments)
    return image.id


def create_backup(
    session: Session, now: datetime, caller: Caller, server: Server, backup: Backup, request_id: str
) -> str:
    """Create an image of kind backup, after which all but the newest `rotation` backups of the type are deleted."""
    servers.check_metadata_quota(session, caller, dict(backup.metadata))
    properties = {**backup.metadata, "backup_type": backup.backup_type}
    image = snapshots.create_image(session, now, caller, server, backup.name, properties, kind="backup")
    arguments = {
        "image_id": image.id,
        "owner": image.owner,
        "backup_type": backup.backup_type,
        "rotation": backup.rotation,
    }
    servers.start_action(session, now, caller, server, BACKUP, request_id, arguments)
    return image.id


def shelve(session: Session, now: datetime, caller: Caller, server: Server, request_id: str) -> None:
    """Snapshot the server to an image and release its host."""
    image = snapshots.create_image(session, now, caller, server, f"{server.name}-shelved", {})
    arguments = {"image_id": image.id, "owner": image.owner}
    servers.start_action(session, now, caller, server, SHELVE, request_id, arguments)


def unshelve(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    request_id: str,
    *,
    zone: str | None = None,
    host: str | None = None,
) -> None:
    """Schedule the server to a host and start it from its image. Raises Conflict when no host has room."""
    if server.vm_state == VmState.SHELVED_OFFLOADED and server.task_state is None and server.host is None:
        zone = zone or server.pinned_zone
        if host:
            scheduling.request_host(server, host)
        if scheduling.claim_host(session, now, server, zone) is None:
            raise errors.Conflict(scheduling.explain_no_host(session, now, server, zone))
        session.flush()
        ports.rebind(session, server.id, server.host)
    servers.start_action(session, now, caller, server, UNSHELVE, request_id)


def reset_state(
    session: Session, now: datetime, caller: Caller, server: Server, state: VmState, request_id: str
) -> None:
    """Set the server's state by order of an operator. The new generation discards completions of running operations."""
    servers.check_host(server)
    operations.begin_action(session, now, server, "resetState", request_id, caller.user_id)
    session.execute(
        update(Server)
        .where(Server.id == server.id, Server.deleted.is_(False))
        .values(
            vm_state=state,
            task_state=None,
            generation=Server.generation + 1,
            updated_at=now,
            fault=fault(now, "The state was set by an operator.") if state is VmState.ERROR else {},
        )
    )
    operations.end_action(session, now, server.id, request_id)


def _flavor_limits(server: Server) -> Flavor:
    return Flavor(ram=server.flavor["ram"], disk=server.flavor["disk"])


def _find_key(session: Session, user_id: str, name: str) -> dict[str, str]:
    try:
        key = keypairs.find(session, user_id, name)
    except errors.NotFound:
        raise errors.BadRequest("Invalid key_name provided.") from None
    return {"name": key.name, "type": key.type, "data": key.public_key}
