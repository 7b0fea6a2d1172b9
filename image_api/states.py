"""Where an image is on its way from a name to a disk.

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
    """Glance's names. Only `active` images boot; only `active` and `deactivated` ones have their bytes in the store."""

    QUEUED = "queued"
    SAVING = "saving"
    UPLOADING = "uploading"
    IMPORTING = "importing"
    ACTIVE = "active"
    DEACTIVATED = "deactivated"


class Visibility(StrEnum):
    """Who sees an image besides its owner."""

    PRIVATE = "private"
    SHARED = "shared"  # the members, once they have accepted
    COMMUNITY = "community"  # everybody who asks for it; not in anybody's list by itself
    PUBLIC = "public"


class MemberStatus(StrEnum):
    """What a project says to an image that is shared with it."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class TaskStatus(StrEnum):
    """How far an import is."""

    PENDING = "pending"
    PROCESSING = "processing"
    SUCCESS = "success"
    FAILURE = "failure"


STORED = frozenset({ImageStatus.ACTIVE, ImageStatus.DEACTIVATED})
"""The statuses in which the store has the image's bytes."""

DISK_FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "ploop", "iso")
CONTAINER_FORMATS = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")
