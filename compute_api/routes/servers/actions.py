"""Route of server actions (POST /servers/{id}/action): the only key of the body names the action."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import Response, g

from app.core import errors
from app.web.bodies import MALFORMED, json_body, parse
from app.web.context import caller, clock, database
from app.web.links import url
from app.web.microversion import v
from app.web.policy import enforce, require
from app.web.responses import empty, json
from compute_api.operations import interfaces
from compute_api.routes.base import unsupported
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import host_client, request_id, transaction, version
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
from compute_api.servers import actions, attributes, servers
from compute_api.servers.actions import Backup
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
Handler = Callable[[str, Any], Response]


@dataclass(frozen=True, slots=True)
class Route:
    """An action of the API: its policy rule and its handler, called with the server's id and the key's value."""

    rule: str
    handler: Handler


def _simple(action: Action) -> Handler:
    """Return the handler of an action without arguments, which an operation carries out."""

    def handler(server_id: str, body: Any) -> Response:
        if body not in (None, {}):
            raise errors.BadRequest(
                f"Invalid input for field/attribute {action.name}. Value: {body}. It takes nothing."
            )
        return _start(server_id, action)

    return handler


def _start(server_id: str, action: Action) -> Response:
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        servers.start_action(session, clock().now(), caller(), server, action, request_id())
    return empty(HTTPStatus.ACCEPTED)


def _reboot(server_id: str, body: Any) -> Response:
    kind = parse(Reboot, body).type.upper()
    return _start(server_id, REBOOT_SOFT if kind == "SOFT" else REBOOT_HARD)


def _plain(act: Callable[..., None]) -> Handler:
    """Return the handler of a domain function that takes nothing but the server."""

    def handler(server_id: str, _body: Any) -> Response:
        with transaction() as session:
            act(session, clock().now(), caller(), servers.find(session, caller(), server_id), request_id())
        return empty(HTTPStatus.ACCEPTED)

    return handler


def _rebuild(server_id: str, body: Any) -> Response:
    fields = parse(RebuildBody, body, version()).rebuild()
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        password = actions.rebuild(session, clock().now(), caller(), server, fields, request_id())
        nics = ports.list_nics(session, [server.id]).get(server.id, ())
        shown = views.rebuilt(server, nics, version(), caller(), password)
    return json({"server": shown}, HTTPStatus.ACCEPTED, {"Location": url(f"/compute/v2.1/servers/{server_id}")})


def _resize(server_id: str, body: Any) -> Response:
    fields = parse(Resize, body)
    flavor_id = str(fields.flavor_ref).rsplit("/", 1)[-1]
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        disk_config = fields.disk_config or server.disk_config
        actions.resize(session, clock().now(), caller(), server, flavor_id, request_id(), disk_config=disk_config)
    return empty(HTTPStatus.ACCEPTED)


def _confirm_resize(server_id: str, _body: Any) -> Response:
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        actions.confirm_resize(session, clock().now(), caller(), server, request_id())
    return empty()


def _create_image(server_id: str, body: Any) -> Response:
    fields = parse(CreateImage, body)
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        image_id = actions.create_image(
            session, clock().now(), caller(), server, fields.name, fields.metadata, request_id()
        )
    return _render_image_id(image_id)


def _create_backup(server_id: str, body: Any) -> Response:
    fields = parse(CreateBackup, body)
    backup = Backup(
        name=fields.name, metadata=fields.metadata, backup_type=fields.backup_type, rotation=fields.rotation
    )
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        image_id = actions.create_backup(session, clock().now(), caller(), server, backup, request_id())
    return _render_image_id(image_id) if fields.rotation else empty(HTTPStatus.ACCEPTED)


def _render_image_id(image_id: str) -> Response:
    if version() >= IMAGE_ID_SINCE:
        return json({"image_id": image_id}, HTTPStatus.ACCEPTED)
    response = empty(HTTPStatus.ACCEPTED)
    response.headers["Location"] = url(f"/image/v2/images/{image_id}")
    return response


def _rescue(server_id: str, body: Any) -> Response:
    fields = parse(Rescue, body or {})
    with transaction() as session:
        password = actions.rescue(
            session,
            clock().now(),
            caller(),
            servers.find(session, caller(), server_id),
            request_id(),
            image_id=fields.rescue_image_ref,
            admin_pass=fields.admin_pass,
        )
    return json({"adminPass": password})


def _unshelve(server_id: str, body: Any) -> Response:
    fields = parse(Unshelve, body or {}, version())
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        zone = fields.availability_zone
        actions.unshelve(session, clock().now(), caller(), server, request_id(), zone=zone, host=fields.host)
    return empty(HTTPStatus.ACCEPTED)


def _shelve_offload(server_id: str, _body: Any) -> Response:
    """Raise Conflict: shelving offloads at once."""
    return _refuse(server_id, "shelveOffload")


def _restore(server_id: str, _body: Any) -> Response:
    """Raise Conflict: there is no deferred deletion."""
    return _refuse(server_id, "restore")


def _refuse(server_id: str, name: str) -> Response:
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
    raise errors.Conflict(f"Cannot '{name}' instance {server.id} while it is in vm_state {server.vm_state}")


def _change_password(server_id: str, body: Any) -> Response:
    """Raise Conflict: guests have no QEMU guest agent, which Nova needs for this."""
    parse(ChangePassword, body)
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
    if server.vm_state != VmState.ACTIVE or server.task_state is not None:
        return _refuse(server_id, "changePassword")
    raise errors.Conflict("QEMU guest agent is not enabled")


def _reset_state(server_id: str, body: Any) -> Response:
    state = VmState(parse(ResetState, body).state)
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        actions.reset_state(session, clock().now(), caller(), server, state, request_id())
    return empty(HTTPStatus.ACCEPTED)


def _inject_network_info(server_id: str, _body: Any) -> Response:
    """Reapply the server's ports on its host; guests read them from the config drive and the metadata service."""
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        interfaces.refresh(session, clock().now(), [server.id], request_id())
    return empty(HTTPStatus.ACCEPTED)


def _lock(server_id: str, body: Any) -> Response:
    reason = parse(Lock, body or {}, version()).locked_reason
    with transaction() as session:
        attributes.lock(clock().now(), caller(), servers.find(session, caller(), server_id), reason)
    return empty(HTTPStatus.ACCEPTED)


def _unlock(server_id: str, _body: Any) -> Response:
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        if server.locked_by == "admin":
            enforce("os_compute_api:os-lock-server:unlock:unlock_override")
        attributes.unlock(clock().now(), server)
    return empty(HTTPStatus.ACCEPTED)


def _console_output(server_id: str, body: Any) -> Response:
    length = parse(ConsoleOutput, body or {}).length
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
    if server.host is None or server.launched_at is None:
        raise errors.Conflict(f"Instance {server_id} is not ready")
    text = host_client()(server.host, "console_log", server.id)
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
    "os-getConsoleOutput": Route("os_compute_api:os-console-output", _console_output),
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
    return ACTIONS[name].handler(server_id, value)
