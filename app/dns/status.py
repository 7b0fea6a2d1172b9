"""Result of the last DNS sync, for `sixstack status`: a file in the API's directory that `sixstack up` removes."""

import json
from datetime import datetime

from app.core.settings import Settings

FILE = "dns.json"


def write(settings: Settings, now: datetime, error: str | None) -> None:
    """Record a sync that succeeded, or failed with `error`."""
    written = {"zone": settings.dns_zone, "server": settings.dns_server, "at": now.timestamp(), "error": error}
    temporary = settings.api_directory / f".{FILE}"
    temporary.write_text(json.dumps(written))
    temporary.rename(settings.api_directory / FILE)


def remove(settings: Settings) -> None:
    """Remove the status: no sync process runs."""
    (settings.api_directory / FILE).unlink(missing_ok=True)


def summary(settings: Settings, now: datetime) -> str | None:
    """Return the status in one line; None when no sync process runs."""
    try:
        known = json.loads((settings.api_directory / FILE).read_text())
    except (OSError, ValueError):
        return None
    ago = f"{max(0, round(now.timestamp() - known['at']))} s ago"
    if known["error"]:
        return f"{known['zone']} on {known['server']} failed {ago}: {known['error']}"
    return f"{known['zone']} on {known['server']} is in sync, last synced {ago}"
