"""There are no volumes yet: every list is empty, every id is unknown, every quota is 0, and creating says so."""

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
"""What Cinder limits per project."""

LIMIT = 0

REASON = "This cloud has no volumes: a server's disk is as large as its flavor says, and stays with the server."


class VolumesExceeded(QuotaExceeded):
    """Creating any volume, snapshot or backup."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"VolumeLimitExceeded: Maximum number of {what} allowed ({LIMIT}) exceeded for quota '{what}'. {REASON}"
        )


def not_found(what: str, key: str) -> NotFound:
    """What is said of any id."""
    return NotFound(f"{what} {key} could not be found.")


def quota_change_refused() -> BadRequest:
    """What is said to an operator who would raise the quota of something that does not exist."""
    return BadRequest(f"The quotas of block storage are {LIMIT} and cannot be changed. {REASON}")
