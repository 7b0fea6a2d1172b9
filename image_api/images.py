"""Image lifecycle: visibility, creation, activation, deletion, quota, and release of dead claims."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, or_, select, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from app.db.database import after_commit
from image_api.ingest.ingest import HASH_ALGORITHM, UNLIMITED, Limits, StoredContent
from image_api.models import Image, ImageMember, ImageTask
from image_api.states import STORED, ImageStatus, MemberStatus, TaskStatus, Visibility
from image_api.stores import process_identity
from image_api.stores.file import Store
from image_api.stores.object_keys import disk_key, staged_key, upload_key

OVER_QUOTA = "Request exceeds image size quota: the project's images would exceed it."
TASK_KEPT_HOURS = 48
UNFINISHED = (TaskStatus.PENDING, TaskStatus.PROCESSING)
QUOTA_LOCK = 0x696D61676573  # seed of the PostgreSQL advisory lock of a project's image quota


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """Parsed create request. `id` None: generate one; `owner` None: the caller's project."""

    id: str | None = None
    name: str | None = None
    owner: str | None = None
    visibility: Visibility = Visibility.SHARED
    protected: bool = False
    os_hidden: bool = False
    disk_format: str | None = None
    container_format: str | None = None
    min_disk: int = 0
    min_ram: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)


def visible_to(caller: Caller, member_status: MemberStatus | None = MemberStatus.ACCEPTED) -> ColumnElement[bool]:
    """Return a filter for images visible to the caller; shared images only in the given member status (None: any)."""
    if caller.is_admin:
        return true()
    shared = select(ImageMember.image_id).where(ImageMember.member == caller.project)
    if member_status is not None:
        shared = shared.where(ImageMember.status == member_status)
    return or_(
        and_(Image.owner == caller.project, Image.owner != ""),
        Image.visibility.in_([Visibility.PUBLIC, Visibility.COMMUNITY]),
        and_(Image.visibility == Visibility.SHARED, Image.id.in_(shared)),
    )


def find_visible(session: Session, caller: Caller, image_id: str) -> Image:
    """Return an image if it is the project's own, public, community, or shared with the project in any member status.

    Raises NotFound.
    """
    image = session.get(Image, image_id)
    if image is None or not is_visible(session, caller, image):
        raise errors.NotFound(f"No image found with ID {image_id}")
    return image


def is_visible(session: Session | Connection, caller: Caller, image: Image | Row[Any]) -> bool:
    """Return whether an image is visible to the caller; queries members only for other projects' shared images."""
    if caller.is_admin or image.visibility in (Visibility.PUBLIC, Visibility.COMMUNITY):
        return True
    if image.owner == caller.project and image.owner:
        return True
    if image.visibility != Visibility.SHARED:
        return False
    member = select(ImageMember.image_id).where(ImageMember.image_id == image.id, ImageMember.member == caller.project)
    return session.execute(member).first() is not None


def create(session: Session, caller: Caller, new: NewImage, now: datetime) -> Image:
    """Create a queued image. Raises Conflict when the id exists, BadRequest when it is not a UUID."""
    image_id = _parse_id(new.id) if new.id is not None else str(uuid4())
    image = Image(
        id=image_id,
        name=new.name,
        status=ImageStatus.QUEUED,
        visibility=new.visibility,
        owner=new.owner if new.owner is not None else caller.project,
        protected=new.protected,
        os_hidden=new.os_hidden,
        disk_format=new.disk_format,
        container_format=new.container_format,
        min_disk=new.min_disk,
        min_ram=new.min_ram,
        properties=dict(new.properties),
        tags=sorted(set(new.tags)),
        created_at=now,
        updated_at=now,
    )
    if session.scalar(select(Image.id).where(Image.id == image_id)) is not None:
        raise errors.Conflict(f"Image ID {image_id} already exists!")
    session.add(image)
    try:
        session.flush()
    except IntegrityError:
        raise errors.Conflict(f"Image ID {image_id} already exists!") from None
    return image


def remove(session: Session, store: Store, image: Image, now: datetime) -> None:
    """Delete the image, and its objects after the commit. Raises Forbidden when it is protected.

    Servers created from it keep running, since hosts keep base images in use. Unfinished imports are marked as failed;
    their workers lose the claim and clean up.
    """
    if image.protected:
        raise errors.Forbidden(f"Image {image.id} is protected and cannot be deleted.")
    session.delete(image)
    session.execute(
        update(ImageTask)
        .where(ImageTask.image_id == image.id, ImageTask.status.in_(UNFINISHED))
        .values(
            status=TaskStatus.FAILURE,
            message="The image was deleted.",
            worker=None,
            worker_host=None,
            worker_until=None,
            updated_at=now,
            expires_at=now + timedelta(hours=TASK_KEPT_HOURS),
        )
        .execution_options(synchronize_session=False)
    )
    after_commit(session, lambda: delete_objects(store, image.id))


def delete_objects(store: Store, image_id: str) -> None:
    """Delete all objects of an image from the store."""
    for name in (upload_key(image_id), staged_key(image_id)):
        store.delete(disk_key(name))
        store.delete(name)


def set_active(image: Image, stored: StoredContent, now: datetime) -> None:
    """Mark the image as active and record its content."""
    image.status = ImageStatus.ACTIVE
    record_content(image, stored, now)


def record_content(image: Image, stored: StoredContent, now: datetime) -> None:
    """Record size, format and hashes of the stored content, and release the upload claim."""
    image.size = stored.size
    image.virtual_size = stored.virtual_size
    image.checksum = stored.checksum
    image.os_hash_algo = HASH_ALGORITHM
    image.os_hash_value = stored.hash_value
    image.stored_format = stored.format
    image.compression = stored.compression
    image.disk_size = stored.disk_size
    image.disk_hash = stored.disk_hash
    image.writer = image.writer_host = image.writer_until = None
    image.updated_at = now


def set_activation(session: Session, image: Image, *, active: bool, now: datetime) -> None:
    """Deactivate or reactivate an image; only admins may download a deactivated one.

    Raises Forbidden in other states.
    """
    if image.status not in STORED:
        verb = "reactivate" if active else "deactivate"
        raise errors.Forbidden(f"Not allowed to {verb} image in status '{image.status}'")
    image.status = ImageStatus.ACTIVE if active else ImageStatus.DEACTIVATED
    image.updated_at = now
    session.flush()


def used_bytes(session: Session, project_id: str) -> int:
    """Return the bytes that the project's images use in the store: uploads and decompressed disks."""
    unpacked = case((Image.compression.is_not(None), Image.disk_size), else_=0)
    total = session.scalar(select(func.sum(Image.size + unpacked)).where(Image.owner == project_id))
    return int(total or 0)


def check_quota(session: Session, image: Image, stored: StoredContent, bounds: Limits) -> None:
    """Raise QuotaExceeded when the new content exceeds the project's quota.

    Runs in the transaction that records the content, since concurrent uploads are not counted earlier.
    """
    if bounds.project_bytes == UNLIMITED:
        return
    if session.get_bind().dialect.name == "postgresql":  # concurrent transactions do not see each other's images
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(image.owner, QUOTA_LOCK))))
    if used_bytes(session, image.owner) + stored.stored_bytes > bounds.project_bytes:
        raise errors.QuotaExceeded(OVER_QUOTA)


def count(session: Session, project_id: str) -> int:
    """Return the number of the project's images."""
    return session.scalar(select(func.count()).select_from(Image).where(Image.owner == project_id)) or 0


def release_dead_claims(session: Session, now: datetime) -> None:
    """Release claims of dead processes of this host and expired claims: requeue uploads and restart imports."""
    writing = select(Image).where(
        Image.writer.is_not(None), Image.status.in_([ImageStatus.SAVING, ImageStatus.UPLOADING])
    )
    for image in session.scalars(writing):
        if process_identity.is_gone(image.writer_host) or (image.writer_until and image.writer_until < now):
            image.status, image.updated_at = ImageStatus.QUEUED, now
            image.writer = image.writer_host = image.writer_until = None
    for task in session.scalars(select(ImageTask).where(ImageTask.status == TaskStatus.PROCESSING)):
        if process_identity.is_gone(task.worker_host) or (task.worker_until and task.worker_until < now):
            task.status, task.updated_at = TaskStatus.PENDING, now
            task.worker = task.worker_host = task.worker_until = None
    importing = select(Image).where(Image.status == ImageStatus.IMPORTING, ~_has_task())
    for image in session.scalars(importing):
        image.status, image.updated_at = ImageStatus.QUEUED, now
    session.flush()


def _has_task() -> ColumnElement[bool]:
    return select(ImageTask.id).where(ImageTask.image_id == Image.id, ImageTask.status.in_(UNFINISHED)).exists()


def _parse_id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise errors.BadRequest(f"Invalid image id format: {text}") from None
