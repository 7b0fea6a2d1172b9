"""Images for the compute API's image proxy (until microversion 2.35): lists, lookup and metadata."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from image_api import images
from image_api.models import Image

STATUSES = {
    "queued": "SAVING",
    "saving": "SAVING",
    "uploading": "SAVING",
    "importing": "SAVING",
    "active": "ACTIVE",
    "deactivated": "UNKNOWN",
    "killed": "ERROR",
}
"""Nova's image status by Glance's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFilter:
    """Filters and page of GET /images. Empty texts match every image."""

    name: str = ""
    status: str = ""
    server_id: str = ""
    type: str = ""
    min_disk: str = ""
    min_ram: str = ""
    changed_since: datetime | None = None
    limit: int
    marker: str | None = None

    def matches(self, image: Image) -> bool:
        """Return whether the image passes the filters that are not part of the query."""
        return (
            self.status.upper() in ("", status(image))
            and self.server_id in ("", image.properties.get("instance_uuid"))
            and self.type in ("", image.properties.get("image_type"))
            and self.min_disk in ("", str(image.min_disk))
            and self.min_ram in ("", str(image.min_ram))
            and (self.changed_since is None or image.updated_at >= self.changed_since)
        )


def status(image: Image) -> str:
    """Return Nova's status of the image."""
    return STATUSES.get(image.status, "UNKNOWN")


def list_images(session: Session, caller: Caller, filters: ImageFilter) -> list[Image]:
    """List the images that the caller sees, newest first. Raises BadRequest for an unknown marker."""
    query = select(Image).where(images.visible_to(caller)).order_by(Image.created_at.desc(), Image.id)
    if filters.name:
        query = query.where(Image.name == filters.name)
    if filters.marker:
        last = session.get(Image, filters.marker)
        if last is None:
            raise errors.BadRequest(f"marker [{filters.marker}] not found")
        created_at: datetime = last.created_at
        query = query.where((Image.created_at < created_at) | ((Image.created_at == created_at) & (Image.id > last.id)))
    return [image for image in session.scalars(query) if filters.matches(image)][: filters.limit]


def find(session: Session, caller: Caller, image_id: str) -> Image:
    """Return an image that the caller sees. Raises NotFound with Nova's message."""
    try:
        return images.find_visible(session, caller, image_id)
    except errors.NotFound:
        raise errors.NotFound("Image not found.") from None


def find_own(session: Session, caller: Caller, image_id: str) -> Image:
    """Return an image that the caller may change. Raises NotFound, Forbidden."""
    image = find(session, caller, image_id)
    if not caller.is_admin and image.owner != caller.project:
        raise errors.Forbidden("You are not allowed to change the image.")
    return image


def update_metadata(now: datetime, image: Image, items: Mapping[str, str], *, replace: bool) -> dict[str, str]:
    """Add items to the image's properties, or `replace` all of them, and return them."""
    properties = dict(items) if replace else {**image.properties, **items}
    image.properties = properties
    image.updated_at = now
    return properties
