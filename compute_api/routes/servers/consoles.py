"""Routes of consoles: URLs of screens and serial consoles, in Nova's old and new API, and console tokens."""

from typing import Any
from urllib.parse import quote, urlsplit

from flask import Response

from app.console_transport import endpoint
from app.core import errors
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database, settings
from app.web.links import base_url
from app.web.microversion import v
from app.web.policy import require
from app.web.responses import json
from compute_api.access import console_tokens
from compute_api.access.console_tokens import ConsoleType
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import check_available, host_client, transaction, version
from compute_api.schemas import server_actions as schemas
from compute_api.servers import servers

CONSOLE_ACTIONS_UNTIL = v("2.5")
TOKENS_SINCE = v("2.31")
PROTOCOLS = {"vnc": ConsoleType.NOVNC, "serial": ConsoleType.SERIAL}


@compute.post("/servers/<server_id>/remote-consoles")
@require("os_compute_api:os-remote-consoles")
def create_remote_console(server_id: str) -> Response:
    fields = parse(schemas.RemoteConsole, json_body(), version()).remote_console
    url = _issue_url(server_id, fields.type, is_known=PROTOCOLS.get(fields.protocol) == fields.type)
    return json({"remote_console": {"protocol": fields.protocol, "type": fields.type, "url": url}})


def old_console(server_id: str, body: Any) -> Response:
    """Handle os-getVNCConsole and the other console actions, which end with microversion 2.5."""
    check_available(until=CONSOLE_ACTIONS_UNTIL)
    fields = parse(schemas.ConsoleType, body)
    url = _issue_url(server_id, fields.type, is_known=fields.type in PROTOCOLS.values())
    return json({"console": {"type": fields.type, "url": url}})


@compute.get("/os-console-auth-tokens/<token>")
@require("os_compute_api:os-console-auth-tokens")
def show_console_token(token: str) -> Response:
    """Show the server and host of a console token, for operators."""
    with database().reading() as session:
        token_info = console_tokens.find(session, clock().now(), token)
    if version() < TOKENS_SINCE:
        raise errors.Unauthorized("The requested console type details are not accessible")
    port = endpoint.read_port(settings())
    shown = {"instance_uuid": token_info.server_id, "host": token_info.host, "port": port, "internal_access_path": None}
    return json({"console": shown})


def _issue_url(server_id: str, kind: str, *, is_known: bool) -> str:
    """Issue a token and return the console URL. Raises BadRequest for unavailable types, Conflict by server state."""
    here = settings()
    base = endpoint.browser_url(here, base_url())
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
        if not is_known or base is None:
            raise errors.BadRequest(f"Unavailable console type {kind}.")
        others = here.broker_url is not None
        console_tokens.check_available(session, server, here.host_name if here.agent else None, others=others)
        host = server.host
    host_client()(host, "check_console", server_id)
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        token = console_tokens.issue(session, clock().now(), server, ConsoleType(kind), caller())
    if kind == ConsoleType.SERIAL:
        return f"{base.replace('http', 'ws', 1)}/?token={token}"
    place = urlsplit(base).path.lstrip("/")
    return f"{base}/vnc_lite.html?path={quote(f'{place}/' if place else '', safe='')}%3Ftoken%3D{token}"
