"""POST /servers/{id}/action: one body key names the action; each has its rule and its body."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from flask import Response, g
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from app.web.bodies import MALFORMED, json_body, parse
from app.web.context import caller, clock, database
from app.web.links import url
from app.web.microversion import v
from app.web.policy import enforce, require
from app.web.responses import empty, json
from compute_api.models import Server
from compute_api.operations import interfaces
from compute_api.routes.base import unsupported
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import ask, request_id, transaction, version
from compute_api.routes.servers import consoles, diagnostics, migrations
from compute_api.schemas.server_actions import (
    ChangePassword,
    CreateBackup,
    CreateImage,
    RebuildBody,
    Rescue,
    ResetState,
    Resize,
    Unshelve,
)
from compute_api.schemas.servers import ConsoleOutput, Lock, Reboot
from compute_api.servers import actions, servers
from compute_api.states import (
    PAUSE,
    REBOOT_HARD,
    REBOOT_SOFT,
    RESUME,
    START,
    STOP,
    SUSPEND,
    UNPAUSE,
    Action,
    VmState,
)
from compute_api.views import servers as views
from network_api.resources import ports

IMAGE_ID_SINCE = v("2.45")


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
        servers.start_action(session, clock().now(), caller(), server, action, request_id(), arguments)
    return empty(HTTPStatus.ACCEPTED)


def _reboot(server_id: str, body: Any) -> Response:
    kind = parse(Reboot, body).type.upper()
    return _begin(server_id, REBOOT_SOFT if kind == "SOFT" else REBOOT_HARD)


def _act(server_id: str, act: Callable[[Session, datetime, Caller, Server, str], None]) -> Response:
    """An action of the domain that takes nothing but the server."""
    with transaction() as session:
        act(session, clock().now(), caller(), servers.find(session, caller(), server_id), request_id())
    return empty(HTTPStatus.ACCEPTED)


def _plain(act: Callable[[Session, datetime, Caller, Server, str], None]) -> Callable[[str, Any], Response]:
    return lambda server_id, _body: _act(server_id, act)


def _rebuild(server_id: str, body: Any) -> Response:
    asked = parse(RebuildBody, body, version()).rebuild()
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        password = actions.rebuild(session, clock().now(), caller(), server, asked, request_id())
        nics = ports.list_nics(session, [server.id]).get(server.id, ())
        shown = views.rebuilt(server, nics, version(), caller(), password)
    return json({"server": shown}, HTTPStatus.ACCEPTED, {"Location": url(f"/compute/v2.1/servers/{server_id}")})


def _resize(server_id: str, body: Any) -> Response:
    asked = parse(Resize, body)
    flavor_id = str(asked.flavor_ref).rsplit("/", 1)[-1]

    def act(session: Session, now: datetime, who: Caller, server: Server, request: str) -> None:
        actions.resize(session, now, who, server, flavor_id, request)
        server.disk_config = asked.disk_config or server.disk_config

    return _act(server_id, act)


def _confirm_resize(server_id: str, _body: Any) -> Response:
    _act(server_id, actions.confirm_resize)
    return empty()


def _create_image(server_id: str, body: Any) -> Response:
    asked = parse(CreateImage, body)
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        image_id = actions.create_image(
            session, clock().now(), caller(), server, asked.name, asked.metadata, request_id()
        )
    return _image_made(image_id)


def _create_backup(server_id: str, body: Any) -> Response:
    asked = parse(CreateBackup, body)
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        image_id = actions.create_backup(
            session,
            clock().now(),
            caller(),
            server,
            asked.name,
            asked.metadata,
            request_id(),
            backup_type=asked.backup_type,
            rotation=asked.rotation,
        )
    return _image_made(image_id) if asked.rotation else empty(HTTPStatus.ACCEPTED)


def _image_made(image_id: str) -> Response:
    if version() >= IMAGE_ID_SINCE:
        return json({"image_id": image_id}, HTTPStatus.ACCEPTED)
    response = empty(HTTPStatus.ACCEPTED)
    response.headers["Location"] = url(f"/image/v2/images/{image_id}")
    return response


def _rescue(server_id: str, body: Any) -> Response:
    asked = parse(Rescue, body or {})
    with transaction() as session:
        password = actions.rescue(
            session,
            clock().now(),
            caller(),
            servers.find(session, caller(), server_id),
            request_id(),
            image_id=asked.rescue_image_ref,
            admin_pass=asked.admin_pass,
        )
    return json({"adminPass": password})


def _unshelve(server_id: str, body: Any) -> Response:
    asked = parse(Unshelve, body or {}, version())
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        zone = asked.availability_zone
        actions.unshelve(session, clock().now(), caller(), server, request_id(), zone=zone, host=asked.host)
    return empty(HTTPStatus.ACCEPTED)


def _shelve_offload(server_id: str, _body: Any) -> Response:
    """Shelving offloads at once, so nothing is ever left to be offloaded."""
    return _refuse(server_id, "shelveOffload")


def _restore(server_id: str, _body: Any) -> Response:
    """Deleted servers are deleted at once, so there is never one to restore."""
    return _refuse(server_id, "restore")


def _refuse(server_id: str, name: str) -> Response:
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
    raise errors.Conflict(f"Cannot '{name}' instance {server.id} while it is in vm_state {server.vm_state}")


def _change_password(server_id: str, body: Any) -> Response:
    """Nova needs an agent in the guest for this; nobody here has one."""
    parse(ChangePassword, body)
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
    if server.vm_state != VmState.ACTIVE or server.task_state is not None:
        return _refuse(server_id, "changePassword")
    raise errors.Conflict("QEMU guest agent is not enabled")


def _reset_state(server_id: str, body: Any) -> Response:
    state = VmState(parse(ResetState, body).state)
    return _act(
        server_id,
        lambda session, now, who, server, request: actions.reset_state(session, now, who, server, state, request),
    )


def _inject_network_info(server_id: str, _body: Any) -> Response:
    """Have the host apply the server's ports again; guests read them from the config drive and metadata service."""
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        interfaces.refresh(session, clock().now(), [server.id], request_id())
    return empty(HTTPStatus.ACCEPTED)


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
    text = ask()(server.host, "console_log", server.id)
    if length is not None and length >= 0:
        text = "\n".join(text.splitlines()[-length:]) if length else ""
    return json({"output": text})


ACTIONS: dict[str, Route] = {
    "os-start": Route("os_compute_api:servers:start", _simple(START)),
    "os-stop": Route("os_compute_api:servers:stop", _simple(STOP)),
    "reboot": Route("os_compute_api:servers:reboot", _reboot),
    "pause": Route("os_compute_api:os-pause-server:pause", _simple(PAUSE)),
    "unpause": Route("os_compute_api:os-pause-server:unpause", _simple(UNPAUSE)),
    "suspend": Route("os_compute_api:os-suspend-server:suspend", _simple(SUSPEND)),
    "resume": Route("os_compute_api:os-suspend-server:resume", _simple(RESUME)),
    "rebuild": Route("os_compute_api:servers:rebuild", _rebuild),
    "resize": Route("os_compute_api:servers:resize", _resize),
    "confirmResize": Route("os_compute_api:servers:confirm_resize", _confirm_resize),
    "revertResize": Route("os_compute_api:servers:revert_resize", _plain(actions.revert_resize)),
    "createImage": Route("os_compute_api:servers:create_image", _create_image),
    "createBackup": Route("os_compute_api:os-create-backup", _create_backup),
    "rescue": Route("os_compute_api:os-rescue", _rescue),
    "unrescue": Route("os_compute_api:os-unrescue", _plain(actions.unrescue)),
    "shelve": Route("os_compute_api:os-shelve:shelve", _plain(actions.shelve)),
    "shelveOffload": Route("os_compute_api:os-shelve:shelve_offload", _shelve_offload),
    "unshelve": Route("os_compute_api:os-shelve:unshelve", _unshelve),
    "forceDelete": Route("os_compute_api:os-deferred-delete:force", _plain(servers.delete)),
    "restore": Route("os_compute_api:os-deferred-delete:restore", _restore),
    "changePassword": Route("os_compute_api:os-admin-password", _change_password),
    "trigger_crash_dump": Route("os_compute_api:servers:trigger_crash_dump", diagnostics.trigger_crash_dump),
    "os-resetState": Route("os_compute_api:os-admin-actions:reset_state", _reset_state),
    "injectNetworkInfo": Route("os_compute_api:os-admin-actions:inject_network_info", _inject_network_info),
    "resetNetwork": Route("os_compute_api:os-admin-actions:reset_state", unsupported.reset_network),
    "lock": Route("os_compute_api:os-lock-server:lock", _lock),
    "unlock": Route("os_compute_api:os-lock-server:unlock", _unlock),
    "migrate": Route("os_compute_api:os-migrate-server:migrate", migrations.migrate),
    "os-migrateLive": Route("os_compute_api:os-migrate-server:migrate_live", migrations.migrate_live),
    "evacuate": Route("os_compute_api:os-evacuate", migrations.evacuate),
    "addSecurityGroup": Route("os_compute_api:os-security-groups:add", unsupported.add_security_group),
    "removeSecurityGroup": Route("os_compute_api:os-security-groups:remove", unsupported.remove_security_group),
    "addFloatingIp": Route("os_compute_api:os-floating-ips:add", unsupported.add_floating_ip),
    "removeFloatingIp": Route("os_compute_api:os-floating-ips:remove", unsupported.remove_floating_ip),
    "os-getVNCConsole": Route("os_compute_api:os-remote-consoles", consoles.old_console),
    "os-getRDPConsole": Route("os_compute_api:os-remote-consoles", consoles.old_console),
    "os-getSPICEConsole": Route("os_compute_api:os-remote-consoles", consoles.old_console),
    "os-getSerialConsole": Route("os_compute_api:os-remote-consoles", consoles.old_console),
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
