"""A server's disk becomes the image that was made for it when the snapshot was asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from app.core import errors
from app.core.clock import Clock
from app.db.database import Database
from image_api import images
from image_api.imports import uploads
from image_api.imports.uploads import UploadClaim
from image_api.ingest.ingest import UNLIMITED, Limits, StoredContent
from image_api.models import Image
from image_api.states import ImageStatus
from image_api.stores import process_identity
from image_api.stores.file import Store
from image_api.stores.object_keys import upload_key


@dataclass(frozen=True)
class Snapshot:
    """What is known before the bytes come: whose image it fills, how large the server's disk is, and the sha512 (hex)
    that the bytes must have where it was said."""

    image_id: str
    owner: str
    disk_format: str
    disk_bytes: int
    sha512: str | None = None

    def limits(self, quota_gib: int) -> Limits:
        """Not more than the disk can need, tables and all, nor than the project's quota (-1 for none)."""
        most = self.disk_bytes + (self.disk_bytes >> 8) + (64 << 20)
        return Limits(most, self.disk_bytes, UNLIMITED if quota_gib < 0 else quota_gib << 30)


def store_snapshot(
    database: Database, clock: Clock, store: Store, snapshot: Snapshot, pieces: Iterator[bytes], quota_gib: int
) -> None:
    """Fill the image; whoever began to before is dead, and has lost it. It is inspected like any upload.

    Raises NotFound when the image was deleted, also meanwhile, Conflict when it is no longer to be filled, BadRequest,
    TooLarge and QuotaExceeded for what is refused, Unavailable for bytes that arrived otherwise than they were sent;
    then it is queued again and nothing is stored.
    """
    bounds = snapshot.limits(quota_gib)
    claimed, used = _claim(database, clock, snapshot)

    def done(image: Image, stored: StoredContent, now: datetime) -> None:
        if snapshot.sha512 not in (None, stored.hash_value):
            raise errors.Unavailable("The image arrived otherwise than it was sent.")
        images.set_active(image, stored, now)

    def ours() -> Iterator[bytes]:
        total = used
        for piece in pieces:
            total += len(piece)
            if total > bounds.project_bytes:
                raise errors.QuotaExceeded(images.OVER_QUOTA)
            yield piece
        with database.reading() as session:  # nothing is put in the place of what somebody else has finished
            uploads.find_claimed(session, claimed.image_id, claimed.writer)

    try:
        uploads.store_upload(database, clock, store, claimed, ours(), bounds, done)
    except errors.Gone:
        raise errors.NotFound(f"No image found with ID {snapshot.image_id}") from None


def _claim(database: Database, clock: Clock, snapshot: Snapshot) -> tuple[UploadClaim, int]:
    """The claim, and how many bytes the project's images take already."""
    image_id, now = snapshot.image_id, clock.now()
    with database.transaction() as session:
        image = session.get(Image, image_id)
        if image is None:
            raise errors.NotFound(f"No image found with ID {image_id}")
        if image.status not in (ImageStatus.QUEUED, ImageStatus.SAVING) or image.owner != snapshot.owner:
            raise errors.Conflict(f"Image {image_id} is {image.status} and cannot be filled.")
        image.disk_format, image.container_format = snapshot.disk_format, image.container_format or "bare"
        image.status, image.writer, image.writer_host = ImageStatus.SAVING, str(uuid4()), process_identity.current()
        image.writer_until, image.updated_at = now + timedelta(seconds=uploads.LEASE_SECONDS), now
        claimed = UploadClaim(image_id, image.writer, upload_key(image_id), snapshot.disk_format)
        return claimed, images.used_bytes(session, image.owner)
