"""Views of the action log of servers (os-instance-actions)."""

from collections.abc import Sequence
from typing import Any

from app.core.caller import Caller
from app.web.microversion import Version, v
from compute_api.models import Server, ServerAction
from compute_api.servers import servers
from compute_api.servers.action_log import ActionEvent
from compute_api.views.servers import format_microseconds

UPDATED_SINCE, EVENTS_SINCE, HOST_SINCE, DETAILS_SINCE = v("2.58"), v("2.51"), v("2.62"), v("2.84")


def entry(action: ServerAction, version: Version) -> dict[str, Any]:
    """Render an entry of the list of actions."""
    body = {
        "action": action.action,
        "instance_uuid": action.server_id,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": action.project_id,
        "start_time": format_microseconds(action.started_at),
        "message": "Error" if action.message else None,
    }
    if version >= UPDATED_SINCE:
        body["updated_at"] = format_microseconds(action.updated_at)
    return body


def show(
    server: Server, action: ServerAction, events: Sequence[ActionEvent], version: Version, caller: Caller
) -> dict[str, Any]:
    """Render an action; its events are for admins, and from 2.51 on for all users."""
    body = entry(action, version)
    if caller.is_admin or version >= EVENTS_SINCE:
        body["events"] = [_event(server, action.action, event, version, caller) for event in events]
    return body


def _event(server: Server, name: str, event: ActionEvent, version: Version, caller: Caller) -> dict[str, Any]:
    is_finished = event.finished_at is not None
    body: dict[str, Any] = {
        "event": f"compute_{name}",
        "start_time": format_microseconds(event.started_at),
        "finish_time": format_microseconds(event.finished_at),
        "result": None if not is_finished else "Error" if event.message else "Success",
    }
    if caller.is_admin or version < EVENTS_SINCE:
        body["traceback"] = None
    if version >= HOST_SINCE:
        body["hostId"] = servers.host_id(server)
        if caller.is_admin:
            body["host"] = event.host
    if version >= DETAILS_SINCE:
        body["details"] = event.message
    return body
