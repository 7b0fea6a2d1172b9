"""Upload claims: a lease on an image, renewed during the upload and released when the upload fails."""

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
    """A claim on an image: `writer` identifies it, `name` is the object key, `declared` the declared disk format."""

    image_id: str
    writer: str
    name: str
    declared: str


def claim(session: Session, image: Image, status: ImageStatus, now: datetime) -> str:
    """Claim a queued image for writing. Returns the id of the claim. Raises Conflict when the image is claimed already
    or not queued, BadRequest when its formats are not set."""
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
    """Release a claim: the image returns to queued, unless it was deleted or claimed by another writer."""
    session.execute(
        update(Image)
        .where(Image.id == image_id, Image.writer == writer)
        .values(status=ImageStatus.QUEUED, writer=None, writer_host=None, writer_until=None, updated_at=now)
        .execution_options(synchronize_session=False)
    )


def find_claimed(session: Session, image_id: str, writer: str) -> Image:
    """Return the image of a valid claim. Raises Gone when the image was deleted or the claim is lost."""
    image = session.get(Image, image_id)
    if image is None or image.writer != writer:
        raise errors.Gone(f"Image {image_id} was deleted while its data were being uploaded.")
    return image


def make_renewal(database: Database, clock: Clock, image_id: str, writer: str) -> Callable[[], None]:
    """Return a function to call for each chunk: it renews the lease every RENEW_SECONDS and raises Gone if lost."""
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
    """Return whether a claim has expired."""
    return session.scalar(select(Image.id).where(_expired(now)).limit(1)) is not None


def release_expired(session: Session, now: datetime) -> None:
    """Release expired claims of dead processes."""
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
    on_stored: Callable[[Image, StoredContent, datetime], None],
) -> None:
    """Ingest an upload under a claim and call `on_stored` in the final transaction. After any error the image is
    queued and its objects are removed. Raises the errors of `ingest`, and Gone."""
    try:
        renew = make_renewal(database, clock, claimed.image_id, claimed.writer)
        stored = ingest(pieces, store, claimed.name, claimed.declared, bounds, renew)
        with database.transaction() as session:
            image = find_claimed(session, claimed.image_id, claimed.writer)
            check_quota(session, image, stored, bounds)
            on_stored(image, stored, clock.now())
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
