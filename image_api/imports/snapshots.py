"""Stores server snapshots in the images created by the createImage action."""

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
    """Properties of a snapshot before its transfer: target image, owner, size of the server's disk in bytes, and the
    expected sha512 (hex), if known."""

    image_id: str
    owner: str
    disk_format: str
    disk_bytes: int
    sha512: str | None = None

    def limits(self, quota_gib: int) -> Limits:
        """Return the limits of the upload: disk size plus qcow2 metadata, and the project's quota (-1: unlimited)."""
        max_object_bytes = self.disk_bytes + (self.disk_bytes >> 8) + (64 << 20)
        return Limits(max_object_bytes, self.disk_bytes, UNLIMITED if quota_gib < 0 else quota_gib << 30)


def store_snapshot(
    database: Database, clock: Clock, store: Store, snapshot: Snapshot, pieces: Iterator[bytes], quota_gib: int
) -> None:
    """Upload a snapshot to its image and inspect it like any upload. Takes over the claim of an interrupted attempt.

    Raises NotFound when the image is deleted before or during the upload, Conflict when it is neither queued nor
    saving, BadRequest, TooLarge and QuotaExceeded for rejected content, Unavailable for a hash mismatch. After an error
    the image is queued and nothing is stored.
    """
    bounds = snapshot.limits(quota_gib)
    claimed, used = _claim(database, clock, snapshot)

    def activate(image: Image, stored: StoredContent, now: datetime) -> None:
        if snapshot.sha512 not in (None, stored.hash_value):
            raise errors.Unavailable("The image data does not match its sha-512; it was changed in transit.")
        images.set_active(image, stored, now)

    def check_pieces() -> Iterator[bytes]:
        total = used
        for piece in pieces:
            total += len(piece)
            if total > bounds.project_bytes:
                raise errors.QuotaExceeded(images.OVER_QUOTA)
            yield piece
        with database.reading() as session:  # do not overwrite the content of another, completed upload
            uploads.find_claimed(session, claimed.image_id, claimed.writer)

    try:
        uploads.store_upload(database, clock, store, claimed, check_pieces(), bounds, activate)
    except errors.Gone:
        raise errors.NotFound(f"No image found with ID {snapshot.image_id}") from None


def _claim(database: Database, clock: Clock, snapshot: Snapshot) -> tuple[UploadClaim, int]:
    """Claim the image. Returns the claim and the bytes that the project's images use."""
    image_id, now = snapshot.image_id, clock.now()
    with database.transaction() as session:
        image = session.get(Image, image_id)
        if image is None:
            raise errors.NotFound(f"No image found with ID {image_id}")
        if image.status not in (ImageStatus.QUEUED, ImageStatus.SAVING) or image.owner != snapshot.owner:
            raise errors.Conflict(f"Image {image_id} is {image.status}; a snapshot cannot be uploaded to it.")
        image.disk_format, image.container_format = snapshot.disk_format, image.container_format or "bare"
        image.status, image.writer, image.writer_host = ImageStatus.SAVING, str(uuid4()), process_identity.current()
        image.writer_until, image.updated_at = now + timedelta(seconds=uploads.LEASE_SECONDS), now
        claimed = UploadClaim(image_id, image.writer, upload_key(image_id), snapshot.disk_format)
        return claimed, images.used_bytes(session, image.owner)
