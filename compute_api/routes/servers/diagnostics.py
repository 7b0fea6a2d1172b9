"""Routes that change or inspect a running machine: interface attach and detach, diagnostics, crash dumps."""

from http import HTTPStatus
from typing import Any

from flask import Response

from app.core import errors
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database
from app.web.microversion import v
from app.web.policy import require
from app.web.responses import empty, json
from compute_api.operations import interfaces, operations
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import check_available, host_client, request_id, transaction, version
from compute_api.routes.servers import subresources
from compute_api.schemas.server_actions import AttachInterface
from compute_api.servers import crash_dumps, servers
from compute_api.states import PowerState
from compute_api.views import diagnostics as views

DIAGNOSTICS_SCHEMA_SINCE = v("2.48")
CRASH_DUMP_SINCE = v("2.17")


@compute.post("/servers/<server_id>/os-interface")
@require("os_compute_api:os-attach-interfaces:create")
def attach_interface(server_id: str) -> Response:
    fields = parse(AttachInterface, json_body() or {}, version()).interface
    if fields.net_id and fields.port_id:
        raise errors.BadRequest("Must not input both network_id and port_id")
    if fields.fixed_ips and not fields.net_id:
        raise errors.BadRequest("Must input network_id when request IP address")
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        servers.check_lock(caller(), server)
        port_id = interfaces.attach(
            session,
            clock().now(),
            caller(),
            server,
            port_id=fields.port_id,
            network_id=fields.net_id,
            address=fields.fixed_ips[0].ip_address if fields.fixed_ips else None,
            tag=fields.tag,
            request_id=request_id(),
        )
    shown = next(shown for shown in subresources.render_interfaces(server_id) if shown["port_id"] == port_id)
    return json({"interfaceAttachment": shown})


@compute.delete("/servers/<server_id>/os-interface/<port_id>")
@require("os_compute_api:os-attach-interfaces:delete")
def detach_interface(server_id: str, port_id: str) -> Response:
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        servers.check_lock(caller(), server)
        interfaces.detach(session, clock().now(), caller(), server, port_id, request_id())
    return empty(HTTPStatus.ACCEPTED)


@compute.get("/servers/<server_id>/diagnostics")
@require("os_compute_api:os-server-diagnostics")
def show_diagnostics(server_id: str) -> Response:
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
    if server.power_state not in (PowerState.RUNNING, PowerState.PAUSED) or server.host is None:
        raise errors.Conflict(
            f"Cannot 'get_diagnostics' instance {server.id} while it is in vm_state {server.vm_state}"
        )
    counters = host_client()(server.host, "diagnostics", server.id)
    return json(views.show(counters) if version() >= DIAGNOSTICS_SCHEMA_SINCE else views.libvirt_counters(counters))


def trigger_crash_dump(server_id: str, body: Any) -> Response:
    """Inject a non-maskable interrupt into the guest; the request fails when the host does not answer."""
    check_available(since=CRASH_DUMP_SINCE)
    if body is not None:
        raise errors.BadRequest(
            f"Invalid input for field/attribute {crash_dumps.NAME}. Value: {body}. {body!r} is not of type 'null'"
        )
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        crash_dumps.record_start(session, clock().now(), caller(), server, request_id())
        host = server.host
    failure = None
    try:
        host_client()(host, "inject_nmi", server_id)
    except errors.SixstackError as error:
        failure = error
    with transaction() as session:
        operations.end_action(session, clock().now(), server_id, request_id(), failure.message if failure else None)
    if failure:
        raise failure
    return empty(HTTPStatus.ACCEPTED)
