"""Imports: what was asked for is a row; whoever is free claims it, and takes over from one who died at it."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import and_, delete, or_, select
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from app.core.clock import Clock
from app.db.database import Database
from image_api.images import TASK_KEPT_HOURS, set_active
from image_api.ingest.ingest import StoredContent
from image_api.models import Image, ImageTask
from image_api.states import ImageStatus, TaskStatus
from image_api.stores import process_identity

LEASE_SECONDS = 60
RENEW_SECONDS = 10
STORE_NAME = "default"

IMPORT_TASK = "os_glance_import_task"
IMPORTING_TO = "os_glance_importing_to_stores"
FAILED = "os_glance_failed_import"

REQUIRED_STATUS = {"glance-direct": ImageStatus.UPLOADING, "web-download": ImageStatus.QUEUED}
"""Import method → the status it starts from."""


def create_task(
    session: Session, caller: Caller, image: Image, method: str, uri: str | None, request_id: str, now: datetime
) -> ImageTask:
    """Ask for an import. Raises Conflict when the image is not in the status that the method needs."""
    needed = REQUIRED_STATUS[method]
    if image.status != needed or image.writer is not None:
        state = f"being uploaded ({image.status})" if image.writer else image.status
        raise errors.Conflict(f"Image {image.id} is {state}; it needs to be {needed} to use the '{method}' method.")
    for name in ("container_format", "disk_format"):
        if not getattr(image, name):
            raise errors.Conflict(f"'{name}' needs to be set before import")
    task = ImageTask(
        id=str(uuid4()),
        image_id=image.id,
        owner=image.owner,
        user_id=caller.user_id,
        request_id=request_id,
        method=method,
        uri=uri,
        status=TaskStatus.PENDING,
        message="",
        created_at=now,
        updated_at=now,
    )
    session.add(task)
    properties = {name: value for name, value in image.properties.items() if name != FAILED}
    image.properties = {**properties, IMPORT_TASK: task.id, IMPORTING_TO: STORE_NAME}
    image.status, image.updated_at = ImageStatus.IMPORTING, now
    session.flush()
    return task


def claim(session: Session, worker: str, now: datetime) -> ImageTask | None:
    """The oldest import that nobody is at, now the worker's."""
    free = or_(
        ImageTask.status == TaskStatus.PENDING,
        and_(ImageTask.status == TaskStatus.PROCESSING, ImageTask.worker_until < now),
    )
    oldest = select(ImageTask.id).where(free).order_by(ImageTask.created_at).limit(1)
    if session.get_bind().dialect.name == "postgresql":
        oldest = oldest.with_for_update(skip_locked=True)
    task_id = session.scalar(oldest)
    if task_id is None:
        return None
    task = session.get_one(ImageTask, task_id)
    task.status, task.worker, task.worker_host = TaskStatus.PROCESSING, worker, process_identity.current()
    task.worker_until, task.updated_at = now + timedelta(seconds=LEASE_SECONDS), now
    return task


def has_claimable(session: Session, now: datetime) -> bool:
    """Whether there is anything to claim; cheap."""
    free = or_(
        ImageTask.status == TaskStatus.PENDING,
        and_(ImageTask.status == TaskStatus.PROCESSING, ImageTask.worker_until < now),
    )
    return session.scalar(select(ImageTask.id).where(free).limit(1)) is not None


class ClaimLost(Exception):
    """The import is somebody else's by now, or its image is gone."""


def make_renewal(database: Database, clock: Clock, task_id: str, worker: str) -> Callable[[], None]:
    """What to call with every piece: keeps the claim, and raises Lost once it is not ours any more."""
    last = clock.now()

    def renew() -> None:
        nonlocal last
        now = clock.now()
        if (now - last).total_seconds() < RENEW_SECONDS:
            return
        last = now
        with database.transaction() as session:
            task = _find_claimed(session, task_id, worker)
            task.worker_until, task.updated_at = now + timedelta(seconds=LEASE_SECONDS), now

    return renew


def succeed(session: Session, task_id: str, worker: str, stored: StoredContent | None, now: datetime) -> None:
    """The bytes are in the store; None when the image already knows all about them. Raises Lost."""
    task = _find_claimed(session, task_id, worker)
    image = session.get(Image, task.image_id)
    if image is None or image.status != ImageStatus.IMPORTING:
        raise ClaimLost
    if stored:
        set_active(image, stored, now)
    image.status, image.updated_at = ImageStatus.ACTIVE, now
    image.properties = _user_properties(image)
    _finish(task, TaskStatus.SUCCESS, "", now)


def fail(session: Session, task_id: str, worker: str, reason: str, now: datetime) -> None:
    """Nothing came of it: the image is queued again and says so, the task says why. Raises Lost."""
    task = _find_claimed(session, task_id, worker)
    _finish(task, TaskStatus.FAILURE, reason, now)
    image = session.get(Image, task.image_id)
    if image is not None and image.status == ImageStatus.IMPORTING:
        image.status, image.updated_at = ImageStatus.QUEUED, now
        image.size = image.disk_size = image.compression = None
        image.properties = {**_user_properties(image), FAILED: STORE_NAME}


def list_image_tasks(session: Session, image_id: str) -> Sequence[ImageTask]:
    """All imports of an image, the newest first."""
    return session.scalars(
        select(ImageTask).where(ImageTask.image_id == image_id).order_by(ImageTask.created_at.desc(), ImageTask.id)
    ).all()


def list_visible(session: Session, caller: Caller) -> Sequence[ImageTask]:
    """The newest imports of the caller's project, or of all for an admin."""
    query = select(ImageTask).order_by(ImageTask.created_at.desc(), ImageTask.id).limit(1000)
    if not caller.is_admin:
        query = query.where(ImageTask.owner == caller.project)
    return session.scalars(query).all()


def has_expired(session: Session, now: datetime) -> bool:
    """Whether there is anything to forget."""
    return session.scalar(select(ImageTask.id).where(ImageTask.expires_at < now).limit(1)) is not None


def delete_expired(session: Session, now: datetime) -> None:
    """Drop imports that ended long ago."""
    session.execute(
        delete(ImageTask).where(
            ImageTask.status.in_([TaskStatus.SUCCESS, TaskStatus.FAILURE]), ImageTask.expires_at < now
        )
    )


def holds_claim(session: Session, task_id: str, worker: str) -> bool:
    """Whether the claim still holds."""
    try:
        _find_claimed(session, task_id, worker)
    except ClaimLost:
        return False
    return True


def _find_claimed(session: Session, task_id: str, worker: str) -> ImageTask:
    task = session.get(ImageTask, task_id)
    if task is None or task.worker != worker or task.status != TaskStatus.PROCESSING:
        raise ClaimLost
    return task


def _finish(task: ImageTask, status: TaskStatus, message: str, now: datetime) -> None:
    task.status, task.message, task.updated_at = status, message, now
    task.expires_at = now + timedelta(hours=TASK_KEPT_HOURS)
    task.worker = task.worker_host = task.worker_until = None


def _user_properties(image: Image) -> dict[str, str]:
    marks = (IMPORT_TASK, IMPORTING_TO, FAILED)
    return {name: value for name, value in image.properties.items() if name not in marks}
