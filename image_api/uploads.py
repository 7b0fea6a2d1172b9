"""Who may write an image's bytes just now: one claim, renewed while the bytes flow, given back when they break off."""

import socket
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import update
from sqlalchemy.orm import Session

from app import errors
from app.clock import Clock
from app.db import Database
from image_api.models import Image
from image_api.states import ImageStatus

LEASE_SECONDS = 120
RENEW_SECONDS = 20


def begin(session: Session, image: Image, status: ImageStatus, now: datetime) -> str:
    """Claim a queued image for writing; the answer is the claim. Raises Conflict when somebody else has it or it is
    not queued, BadRequest when its formats are not known."""
    if not image.disk_format or not image.container_format:
        missing = [name for name in ("disk_format", "container_format") if not getattr(image, name)]
        raise errors.BadRequest(f"Properties {', '.join(missing)} must be set prior to saving data.")
    writer = str(uuid4())
    claimed = session.scalar(
        update(Image)
        .where(Image.id == image.id, Image.status == ImageStatus.QUEUED)
        .values(
            status=status,
            writer=writer,
            writer_host=socket.gethostname(),
            writer_until=now + timedelta(seconds=LEASE_SECONDS),
            updated_at=now,
        )
        .returning(Image.id)
        .execution_options(synchronize_session=False)
    )
    if claimed is None:
        raise errors.Conflict(f"Image status transition from {image.status} to {status} is not allowed")
    return writer


def give_back(session: Session, image_id: str, writer: str, now: datetime) -> None:
    """The bytes broke off: the image is queued again, unless it is gone or somebody else's by now."""
    session.execute(
        update(Image)
        .where(Image.id == image_id, Image.writer == writer)
        .values(status=ImageStatus.QUEUED, writer=None, writer_host=None, writer_until=None, updated_at=now)
        .execution_options(synchronize_session=False)
    )


def find_claimed(session: Session, image_id: str, writer: str) -> Image:
    """The image, if the claim still holds. Raises Gone when it was deleted meanwhile or taken away."""
    image = session.get(Image, image_id)
    if image is None or image.writer != writer:
        raise errors.Gone(f"Image {image_id} was deleted while its data were being uploaded.")
    return image


def renewal(database: Database, clock: Clock, image_id: str, writer: str) -> Callable[[], None]:
    """What to call with every piece: keeps the claim and raises Gone, now and then, once it is lost."""
    last = clock.now()

    def renew() -> None:
        nonlocal last
        now = clock.now()
        if (now - last).total_seconds() < RENEW_SECONDS:
            return
        last = now
        with database.transaction() as session:
            find_claimed(session, image_id, writer).writer_until = now + timedelta(seconds=LEASE_SECONDS)

    return renew


def expired(session: Session, now: datetime) -> Iterable[str]:
    """Take claims back that nobody renewed: their process is gone. The answer is the images concerned."""
    found = session.scalars(
        update(Image)
        .where(Image.status.in_([ImageStatus.SAVING, ImageStatus.UPLOADING]), Image.writer_until < now)
        .values(status=ImageStatus.QUEUED, writer=None, writer_host=None, writer_until=None, updated_at=now)
        .returning(Image.id)
        .execution_options(synchronize_session=False)
    )
    return list(found)
