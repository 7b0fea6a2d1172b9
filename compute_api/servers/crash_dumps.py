"""Crash dumps: a server's guest is interrupted from outside, and what it does then is its own affair."""

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
    """Write down that somebody is about to ask the host for one. Raises Conflict in Nova's words.

    Nothing is queued: an interrupt that comes late would hit a guest that nobody wants to crash any more.
    """
    servers.check_lock(caller, server)
    if server.vm_state not in ALLOWED_FROM or server.task_state is not None:
        state = f"vm_state {server.vm_state}"
        if server.vm_state in ALLOWED_FROM:
            state = f"task_state {server.task_state}"
        raise errors.Conflict(f"Cannot '{NAME}' instance {server.id} while it is in {state}")
    servers.check_host(server)
    operations.begin_action(session, now, server, NAME, request_id, caller.user_id)
