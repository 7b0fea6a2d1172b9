"""JSON representation of images and members."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from image_api.ingest.formats import GLANCE_NAMES
from image_api.models import Image, ImageMember
from image_api.states import STORED


def show(image: Image | Row[Any]) -> dict[str, Any]:
    """Render an image. Properties are top-level keys; fields override properties of the same name.

    `sixstack_format` is the detected format if it differs from `disk_format`; `sixstack_compression` is the compression
    of the upload.
    """
    stored = image.status in STORED
    body: dict[str, Any] = dict(image.properties)
    detected = GLANCE_NAMES.get(image.stored_format or "", image.stored_format)
    if stored and detected and detected != image.disk_format:
        body["sixstack_format"] = detected
    if stored and image.compression:
        body["sixstack_compression"] = image.compression
    body.update(
        id=image.id,
        name=image.name,
        status=image.status,
        visibility=image.visibility,
        protected=image.protected,
        os_hidden=image.os_hidden,
        owner=image.owner,
        disk_format=image.disk_format,
        container_format=image.container_format,
        min_disk=image.min_disk,
        min_ram=image.min_ram,
        size=image.size if stored else None,
        virtual_size=image.virtual_size if stored else None,
        checksum=image.checksum if stored else None,
        os_hash_algo=image.os_hash_algo if stored else None,
        os_hash_value=image.os_hash_value if stored else None,
        created_at=iso(image.created_at),
        updated_at=iso(image.updated_at),
        tags=image.tags,
        self=f"/v2/images/{image.id}",
        file=f"/v2/images/{image.id}/file",
        schema="/v2/schemas/image",
    )
    return body


def index(images: Sequence[Image | Row[Any]], first: str, following: str | None) -> dict[str, Any]:
    """Render a page of images; links are relative to the endpoint, as in Glance."""
    body: dict[str, Any] = {"images": [show(image) for image in images], "first": first, "schema": "/v2/schemas/images"}
    if following:
        body["next"] = following
    return body


def member(row: ImageMember) -> dict[str, Any]:
    """Render a member."""
    return {
        "member_id": row.member,
        "image_id": row.image_id,
        "status": row.status,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
        "schema": "/v2/schemas/member",
    }


def members(rows: Sequence[ImageMember]) -> dict[str, Any]:
    """Render the members of an image."""
    return {"members": [member(row) for row in rows], "schema": "/v2/schemas/members"}


def iso(time: datetime) -> str:
    """Format a time as Glance does, in UTC with a resolution of seconds."""
    return f"{time.isoformat()[:19]}Z"
