"""Response documents of limits and quotas."""

from typing import Any

from volume_api.stub import LIMIT, RESOURCES


def limits() -> dict[str, Any]:
    """GET /limits."""
    absolute = {
        "maxTotalVolumes": LIMIT,
        "maxTotalSnapshots": LIMIT,
        "maxTotalVolumeGigabytes": LIMIT,
        "maxTotalBackups": LIMIT,
        "maxTotalBackupGigabytes": LIMIT,
        "totalVolumesUsed": 0,
        "totalSnapshotsUsed": 0,
        "totalGigabytesUsed": 0,
        "totalBackupsUsed": 0,
        "totalBackupGigabytesUsed": 0,
    }
    return {"limits": {"rate": [], "absolute": absolute}}


def quota_set(project_id: str, *, usage: bool) -> dict[str, Any]:
    """GET /os-quota-sets/{project}; `usage` adds the current usage to each limit."""
    value: Any = {"limit": LIMIT, "in_use": 0, "reserved": 0, "allocated": 0} if usage else LIMIT
    return {"quota_set": {"id": project_id, **dict.fromkeys(RESOURCES, value)}}
