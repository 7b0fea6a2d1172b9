"""Database models of the image service: images, members, import tasks."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base
from image_api.states import ImageStatus, MemberStatus, TaskStatus, Visibility


class Image(Base):
    """An image. Sizes are bytes, `min_disk` GiB, `min_ram` MiB.

    `disk_format` is declared by the user; `stored_format` is the detected format as a qemu name, None until the image
    is stored. `size`, `checksum` and `os_hash_value` describe the upload. For a compressed upload (`compression`), the
    store also has the decompressed disk, described by `disk_size` and `disk_hash` (sha512); otherwise these equal
    `size` and `os_hash_value`.

    `writer` is the id of the upload claim, `writer_host` its process, `writer_until` the expiry of its lease.
    """

    __tablename__ = "images"
    __table_args__ = (Index("ix_images_owner_created_at", "owner", "created_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str | None] = mapped_column(String(255), index=True)
    status: Mapped[str] = mapped_column(String(20), default=ImageStatus.QUEUED)
    visibility: Mapped[str] = mapped_column(String(20), default=Visibility.SHARED, index=True)
    owner: Mapped[str] = mapped_column(String(255))
    protected: Mapped[bool] = mapped_column(default=False)
    os_hidden: Mapped[bool] = mapped_column(default=False)
    disk_format: Mapped[str | None] = mapped_column(String(20))
    container_format: Mapped[str | None] = mapped_column(String(20))
    stored_format: Mapped[str | None] = mapped_column(String(20))
    compression: Mapped[str | None] = mapped_column(String(20))
    size: Mapped[int | None] = mapped_column(BigInteger)
    virtual_size: Mapped[int | None] = mapped_column(BigInteger)
    disk_size: Mapped[int | None] = mapped_column(BigInteger)
    disk_hash: Mapped[str | None] = mapped_column(String(128))
    min_disk: Mapped[int] = mapped_column(default=0)
    min_ram: Mapped[int] = mapped_column(default=0)
    checksum: Mapped[str | None] = mapped_column(String(32))
    os_hash_algo: Mapped[str | None] = mapped_column(String(64))
    os_hash_value: Mapped[str | None] = mapped_column(String(128))
    properties: Mapped[dict[str, str]] = mapped_column(default=dict)
    tags: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    writer: Mapped[str | None] = mapped_column(String(36))
    writer_host: Mapped[str | None] = mapped_column(String(255))
    writer_until: Mapped[datetime | None]


class ImageMember(Base):
    """A project that an image is shared with."""

    __tablename__ = "image_members"

    image_id: Mapped[str] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), primary_key=True)
    member: Mapped[str] = mapped_column(String(255), primary_key=True, index=True)
    status: Mapped[str] = mapped_column(String(20), default=MemberStatus.PENDING)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ImageTask(Base):
    """An import task. It is kept after its image is deleted, until `expires_at`."""

    __tablename__ = "image_tasks"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    image_id: Mapped[str] = mapped_column(String(36), index=True)
    owner: Mapped[str] = mapped_column(String(255), index=True)
    user_id: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str] = mapped_column(String(64))
    method: Mapped[str] = mapped_column(String(40))
    uri: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(20), default=TaskStatus.PENDING, index=True)
    message: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(String(36))
    worker_host: Mapped[str | None] = mapped_column(String(255))
    worker_until: Mapped[datetime | None]
