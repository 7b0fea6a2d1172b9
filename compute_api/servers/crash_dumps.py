"""Crash dumps: checks and records the trigger_crash_dump action, which injects an NMI into the guest."""

from datetime import datetime

from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from compute_api.models import Server
from compute_api.operations import operations
from compute_api.servers import servers
from compute_api.states import VmState

NAME = "trigger_crash_dump"
ALLOWED_FROM = frozenset({VmState.ACTIVE, VmState.PAUSED, VmState.RESCUED, VmState.RESIZED, VmState.ERROR})


def record_start(session: Session, now: datetime, caller: Caller, server: Server, request_id: str) -> None:
    """Record that the action begins. Raises Conflict, with Nova's message, when the server's state does not allow it.

    No operation is queued: the caller sends the NMI itself, as a late one could crash a guest long after the request.
    """
    servers.check_lock(caller, server)
    if server.vm_state not in ALLOWED_FROM or server.task_state is not None:
        state = f"vm_state {server.vm_state}"
        if server.vm_state in ALLOWED_FROM:
            state = f"task_state {server.task_state}"
        raise errors.Conflict(f"Cannot '{NAME}' instance {server.id} while it is in {state}")
    servers.check_host(server)
    operations.begin_action(session, now, server, NAME, request_id, caller.user_id)
