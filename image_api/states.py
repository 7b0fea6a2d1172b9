"""Image status, visibility, member and task status.

          PUT file                    ok
queued ─────────────▶ saving ─────────────────────▶ active ◀──▶ deactivated
  ▲  │ ▲                 │                            ▲
  │  │ └─────────────────┘ broken upload              │ ok
  │  │ PUT stage                     POST import      │
  │  └───────────▶ uploading ──────────────────▶ importing
  │   POST import (web-download): queued ───────▶     │
  └───────────────────────────────────────────────────┘ failed import
"""

from enum import StrEnum


class ImageStatus(StrEnum):
    """Status of an image, as in Glance. Only `active` images boot; `active` and `deactivated` ones have stored data."""

    QUEUED = "queued"
    SAVING = "saving"
    UPLOADING = "uploading"
    IMPORTING = "importing"
    ACTIVE = "active"
    DEACTIVATED = "deactivated"


class Visibility(StrEnum):
    """Projects besides the owner to which an image is visible."""

    PRIVATE = "private"
    SHARED = "shared"  # members; listed once they have accepted
    COMMUNITY = "community"  # all projects; not in default lists
    PUBLIC = "public"


class MemberStatus(StrEnum):
    """Whether a project has accepted an image that is shared with it."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class TaskStatus(StrEnum):
    """Status of an import task."""

    PENDING = "pending"
    PROCESSING = "processing"
    SUCCESS = "success"
    FAILURE = "failure"


STORED = frozenset({ImageStatus.ACTIVE, ImageStatus.DEACTIVATED})
"""Statuses of images with stored data."""

DISK_FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "ploop", "iso")
CONTAINER_FORMATS = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")
