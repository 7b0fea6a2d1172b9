"""What a server says of itself when something went wrong with it."""

from datetime import datetime
from typing import Any

from compute_api.models import Server
from compute_api.states import PowerState, VmState


def fault(now: datetime, message: str, code: int = 500) -> dict[str, Any]:
    """A fault as the API shows it."""
    return {"code": code, "message": message[:255], "details": message, "created": now.strftime("%Y-%m-%dT%H:%M:%SZ")}


def mark_failed(server: Server, now: datetime, message: str) -> None:
    """The server is in ERROR, and says why."""
    server.vm_state = VmState.ERROR
    server.power_state = PowerState.NOSTATE
    server.fault = fault(now, message)
