"""Stub of the block storage service: lists are empty, every quota is 0, creating a volume exceeds the quota."""

from app.core.errors import BadRequest, NotFound, QuotaExceeded

RESOURCES = (
    "volumes",
    "snapshots",
    "gigabytes",
    "backups",
    "backup_gigabytes",
    "per_volume_gigabytes",
    "groups",
)
"""Resources with a quota in Cinder."""

LIMIT = 0

REASON = "This cloud has no volumes: the size of a server's disk is set by its flavor."


class VolumesExceeded(QuotaExceeded):
    """A volume, snapshot or backup is created."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"VolumeLimitExceeded: Maximum number of {what} allowed ({LIMIT}) exceeded for quota '{what}'. {REASON}"
        )


def not_found(what: str, key: str) -> NotFound:
    """Return the error for any id."""
    return NotFound(f"{what} {key} could not be found.")


def quota_change_refused() -> BadRequest:
    """Return the error for a change of quotas."""
    return BadRequest(f"The quotas of block storage are {LIMIT} and cannot be changed. {REASON}")
