"""Time format of the network API."""

from datetime import datetime


def format_time(time: datetime) -> str:
    """Format a time as 2026-01-01T00:00:00Z."""
    return time.isoformat()[:19] + "Z"
