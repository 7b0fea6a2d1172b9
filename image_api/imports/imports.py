"""Import tasks: a persistent queue. Workers claim tasks with a lease and take over tasks with an expired lease."""

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
"""Import method → required image status."""


def create_task(
    session: Session, caller: Caller, image: Image, method: str, uri: str | None, request_id: str, now: datetime
) -> ImageTask:
    """Queue an import. Raises Conflict when the image is not in the status that the method requires."""
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
    """Claim the oldest task that is pending or has an expired lease; None without one."""
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
    """Return whether a task can be claimed, without a write transaction."""
    free = or_(
        ImageTask.status == TaskStatus.PENDING,
        and_(ImageTask.status == TaskStatus.PROCESSING, ImageTask.worker_until < now),
    )
    return session.scalar(select(ImageTask.id).where(free).limit(1)) is not None


class ClaimLost(Exception):
    """Another worker has claimed the task, or its image was deleted."""


def make_renewal(database: Database, clock: Clock, task_id: str, worker: str) -> Callable[[], None]:
    """Return a function to call for each chunk: it renews the lease every RENEW_SECONDS and raises ClaimLost."""
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
    """Complete a task and activate its image. `stored` is None for staged content. Raises ClaimLost."""
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
    """Record the failure of a task and its reason; the image returns to queued. Raises ClaimLost."""
    task = _find_claimed(session, task_id, worker)
    _finish(task, TaskStatus.FAILURE, reason, now)
    image = session.get(Image, task.image_id)
    if image is not None and image.status == ImageStatus.IMPORTING:
        image.status, image.updated_at = ImageStatus.QUEUED, now
        image.size = image.disk_size = image.compression = None
        image.properties = {**_user_properties(image), FAILED: STORE_NAME}


def list_image_tasks(session: Session, image_id: str) -> Sequence[ImageTask]:
    """List all tasks of an image, newest first."""
    return session.scalars(
        select(ImageTask).where(ImageTask.image_id == image_id).order_by(ImageTask.created_at.desc(), ImageTask.id)
    ).all()


def list_visible(session: Session, caller: Caller) -> Sequence[ImageTask]:
    """List the newest tasks (at most 1000) of the caller's project, or of all projects for an admin."""
    query = select(ImageTask).order_by(ImageTask.created_at.desc(), ImageTask.id).limit(1000)
    if not caller.is_admin:
        query = query.where(ImageTask.owner == caller.project)
    return session.scalars(query).all()


def has_expired(session: Session, now: datetime) -> bool:
    """Return whether completed tasks have passed their retention time."""
    return session.scalar(select(ImageTask.id).where(ImageTask.expires_at < now).limit(1)) is not None


def delete_expired(session: Session, now: datetime) -> None:
    """Delete completed tasks past their retention time."""
    session.execute(
        delete(ImageTask).where(
            ImageTask.status.in_([TaskStatus.SUCCESS, TaskStatus.FAILURE]), ImageTask.expires_at < now
        )
    )


def holds_claim(session: Session, task_id: str, worker: str) -> bool:
    """Return whether the worker still holds its claim on the task."""
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
    internal = (IMPORT_TASK, IMPORTING_TO, FAILED)
    return {name: value for name, value in image.properties.items() if name not in internal}
