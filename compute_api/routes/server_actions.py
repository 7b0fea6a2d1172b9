"""POST /servers/{id}/action: one body key names the action; each has its rule and its body."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import Response, g

from app import errors
from app.web.bodies import MALFORMED, json_body, parse
from app.web.context import caller, clock, database
from app.web.policy import enforce, require
from app.web.responses import empty, json
from compute_api import servers
from compute_api.models import Server
from compute_api.routes.blueprint import compute
from compute_api.routes.context import ask, request_id, transaction, version
from compute_api.schemas.servers import ConsoleOutput, Lock, Reboot
from compute_api.states import PAUSE, REBOOT_HARD, REBOOT_SOFT, START, STOP, UNPAUSE, Action


@dataclass(frozen=True, slots=True)
class Route:
    """An action of the API: who may, and what it does with the body's value."""

    rule: str
    act: Callable[[str, Any], Response]


def _simple(action: Action) -> Callable[[str, Any], Response]:
    def act(server_id: str, body: Any) -> Response:
        if body not in (None, {}):
            raise errors.BadRequest(
                f"Invalid input for field/attribute {action.name}. Value: {body}. It takes nothing."
            )
        return _begin(server_id, action)

    return act


def _begin(server_id: str, action: Action, arguments: dict[str, Any] | None = None) -> Response:
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        servers.begin(session, clock().now(), caller(), server, action, request_id(), arguments)
    return empty(HTTPStatus.ACCEPTED)


def _reboot(server_id: str, body: Any) -> Response:
    kind = parse(Reboot, body).type.upper()
    return _begin(server_id, REBOOT_SOFT if kind == "SOFT" else REBOOT_HARD)


def _lock(server_id: str, body: Any) -> Response:
    reason = parse(Lock, body or {}, version()).locked_reason
    return _change(server_id, lambda server: _set_lock(server, reason))


def _set_lock(server: Server, reason: str | None) -> None:
    server.locked, server.locked_reason = True, reason
    server.locked_by = "admin" if caller().is_admin else "owner"


def _unlock(server_id: str, _body: Any) -> Response:
    def act(server: Server) -> None:
        if server.locked_by == "admin":
            enforce("os_compute_api:os-lock-server:unlock:unlock_override")
        server.locked, server.locked_by, server.locked_reason = False, None, None

    return _change(server_id, act)


def _change(server_id: str, change: Callable[[Server], None]) -> Response:
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        change(server)
        server.updated_at = clock().now()
    return empty(HTTPStatus.ACCEPTED)


def _console(server_id: str, body: Any) -> Response:
    length = parse(ConsoleOutput, body or {}).length
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
    if server.host is None or server.launched_at is None:
        raise errors.Conflict(f"Instance {server_id} is not ready")
    text = ask()("console_log", server.id)
    if length is not None and length >= 0:
        text = "\n".join(text.splitlines()[-length:]) if length else ""
    return json({"output": text})


ACTIONS: dict[str, Route] = {
    "os-start": Route("os_compute_api:servers:start", _simple(START)),
    "os-stop": Route("os_compute_api:servers:stop", _simple(STOP)),
    "reboot": Route("os_compute_api:servers:reboot", _reboot),
    "pause": Route("os_compute_api:os-pause-server:pause", _simple(PAUSE)),
    "unpause": Route("os_compute_api:os-pause-server:unpause", _simple(UNPAUSE)),
    "lock": Route("os_compute_api:os-lock-server:lock", _lock),
    "unlock": Route("os_compute_api:os-lock-server:unlock", _unlock),
    "os-getConsoleOutput": Route("os_compute_api:os-console-output", _console),
}


@compute.post("/servers/<server_id>/action")
@require("os_compute_api:servers:show")
def server_action(server_id: str) -> Response:
    body = json_body()
    if not isinstance(body, dict) or len(body) != 1:
        raise errors.BadRequest(MALFORMED)
    name, value = next(iter(body.items()))
    if name not in ACTIONS:
        raise errors.BadRequest(f"There is no such action: {name}")
    g.action = name
    enforce(ACTIONS[name].rule)
    return ACTIONS[name].act(server_id, value)
