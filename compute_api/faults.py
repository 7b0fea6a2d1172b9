"""Server faults."""

from datetime import datetime
from typing import Any

from compute_api.models import Server
from compute_api.states import PowerState, VmState


def fault(now: datetime, message: str, code: int = 500) -> dict[str, Any]:
    """Return a fault as the API shows it."""
    return {"code": code, "message": message[:255], "details": message, "created": now.strftime("%Y-%m-%dT%H:%M:%SZ")}


def mark_failed(server: Server, now: datetime, message: str) -> None:
    """Set the server to ERROR with a fault."""
    server.vm_state = VmState.ERROR
    server.power_state = PowerState.NOSTATE
    server.fault = fault(now, message)
