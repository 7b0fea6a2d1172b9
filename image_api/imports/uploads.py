"""Who may write an image's bytes just now: one claim, renewed while the bytes flow, given back when they break off."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.orm import Session

from app.core import errors
from app.core.clock import Clock
from app.db.database import Database
from image_api.images import check_quota, delete_objects
from image_api.ingest.ingest import Limits, StoredContent, ingest
from image_api.models import Image
from image_api.states import ImageStatus
from image_api.stores import process_identity
from image_api.stores.file import Store

LEASE_SECONDS = 120
RENEW_SECONDS = 20


@dataclass(frozen=True, slots=True)
class UploadClaim:
    """An image that is ours to fill: the object its bytes go to, and what its owner says they are."""

    image_id: str
    writer: str
    name: str
    declared: str


def claim(session: Session, image: Image, status: ImageStatus, now: datetime) -> str:
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
            writer_host=process_identity.current(),
            writer_until=now + timedelta(seconds=LEASE_SECONDS),
            updated_at=now,
        )
        .returning(Image.id)
        .execution_options(synchronize_session=False)
    )
    if claimed is None:
        raise errors.Conflict(f"Image status transition from {image.status} to {status} is not allowed")
    return writer


def release(session: Session, image_id: str, writer: str, now: datetime) -> None:
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


def make_renewal(database: Database, clock: Clock, image_id: str, writer: str) -> Callable[[], None]:
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


def has_expired(session: Session, now: datetime) -> bool:
    """Whether a claim ran out."""
    return session.scalar(select(Image.id).where(_expired(now)).limit(1)) is not None


def release_expired(session: Session, now: datetime) -> None:
    """Take claims back that nobody renewed: their process is gone."""
    session.execute(
        update(Image)
        .where(_expired(now))
        .values(status=ImageStatus.QUEUED, writer=None, writer_host=None, writer_until=None, updated_at=now)
        .execution_options(synchronize_session=False)
    )


def store_upload(
    database: Database,
    clock: Clock,
    store: Store,
    claimed: UploadClaim,
    pieces: Iterator[bytes],
    bounds: Limits,
    done: Callable[[Image, StoredContent, datetime], None],
) -> None:
    """Store the bytes under the claim, then let `done` write down what they are. Whatever goes wrong, the image is
    queued again and nothing is left; raises what ingest raises, and Gone."""
    try:
        alive = make_renewal(database, clock, claimed.image_id, claimed.writer)
        stored = ingest(pieces, store, claimed.name, claimed.declared, bounds, alive)
        with database.transaction() as session:
            image = find_claimed(session, claimed.image_id, claimed.writer)
            check_quota(session, image, stored, bounds)
            done(image, stored, clock.now())
    except BaseException:
        with database.reading() as session:
            image_now = session.get(Image, claimed.image_id)
        if image_now is None or image_now.writer == claimed.writer:
            delete_objects(store, claimed.image_id)
        with database.transaction() as session:
            release(session, claimed.image_id, claimed.writer, clock.now())
        raise


def _expired(now: datetime) -> ColumnElement[bool]:
    states = [ImageStatus.SAVING, ImageStatus.UPLOADING]
    return and_(Image.status.in_(states), Image.writer.is_not(None), Image.writer_until < now)
