"""Images created from servers: their properties, what a host may upload, and backup rotation."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.caller import Caller
from compute_api.models import Operation, Server
from compute_api.operations.machine_spec import disks
from hypervisor.api.spec import disk_bytes
from image_api import images
from image_api.images import NewImage
from image_api.imports.snapshots import Snapshot
from image_api.models import Image
from image_api.states import ImageStatus, Visibility


def create_image(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    name: str,
    properties: Mapping[str, str],
    *,
    kind: str = "snapshot",
) -> Image:
    """Create the queued image that the host fills. It belongs to the caller's project."""
    new = NewImage(
        id=str(uuid4()),
        name=name,
        owner=caller.project or server.project_id,
        visibility=Visibility.PRIVATE,
        disk_format="qcow2",
        container_format="bare",
        min_disk=server.flavor["disk"],
        min_ram=server.image.get("min_ram") or 0,
        properties={
            "image_type": kind,
            "image_location": "snapshot",
            "image_state": "available",
            "instance_uuid": server.id,
            "base_image_ref": server.image_id,
            "owner_id": server.project_id,
            "user_id": caller.user_id,
            **properties,
        },
    )
    return images.create(session, caller, new, now)


def expected_snapshot(session: Session, operation: Operation, disk_format: str, sha512: str | None = None) -> Snapshot:
    """Return what the host that runs the operation may upload as the image."""
    server = session.scalars(select(Server).where(Server.id == operation.server_id)).one()
    sizes = [disk_bytes(disk) for disk in disks(server)]
    sizes += [disk.image.virtual_size_bytes for disk in disks(server) if disk.image]
    arguments = operation.arguments
    return Snapshot(arguments["image_id"], arguments["owner"], disk_format, max(sizes), sha512)


def list_expired_backups(session: Session, server_id: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return the server's backups of the type of `arguments`, beyond the newest `rotation`."""
    query = select(Image).where(Image.owner == arguments["owner"], Image.status == ImageStatus.ACTIVE)
    same = [
        image
        for image in session.scalars(query.order_by(Image.created_at.desc(), Image.id))
        if image.properties.get("instance_uuid") == server_id
        and image.properties.get("image_type") == "backup"
        and image.properties.get("backup_type") == arguments["backup_type"]
        and not image.protected
    ]
    same.sort(key=lambda image: image.id != arguments["image_id"])
    return [image.id for image in same[arguments["rotation"] :]]
