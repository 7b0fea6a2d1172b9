"""Times as Neutron writes them."""

from datetime import datetime


def format_time(time: datetime) -> str:
    """2026-01-01T00:00:00Z."""
    return time.isoformat()[:19] + "Z"
