"""URLs of screens and serial consoles, in Nova's two ways of asking, and what a console's token is good for."""

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
from compute_api.routes.base.context import ask, transaction, version
from compute_api.schemas import server_actions as schemas
from compute_api.servers import servers

REMOTE_CONSOLES_SINCE = v("2.6")
TOKENS_SINCE = v("2.31")
PROTOCOLS = {"vnc": ConsoleType.NOVNC, "serial": ConsoleType.SERIAL}


@compute.post("/servers/<server_id>/remote-consoles")
@require("os_compute_api:os-remote-consoles")
def create_remote_console(server_id: str) -> Response:
    asked = parse(schemas.RemoteConsole, json_body(), version()).remote_console
    url = _url(server_id, asked.type, is_known=PROTOCOLS.get(asked.protocol) == asked.type)
    return json({"remote_console": {"protocol": asked.protocol, "type": asked.type, "url": url}})


def old_console(server_id: str, body: Any) -> Response:
    """os-getVNCConsole and its like, which Nova has not any more where it has remote-consoles."""
    if version() >= REMOTE_CONSOLES_SINCE:
        raise errors.NotFound("The resource could not be found.")
    asked = parse(schemas.ConsoleType, body)
    url = _url(server_id, asked.type, is_known=asked.type in PROTOCOLS.values())
    return json({"console": {"type": asked.type, "url": url}})


@compute.get("/os-console-auth-tokens/<token>")
@require("os_compute_api:os-console-auth-tokens")
def show_console_token(token: str) -> Response:
    """Whose console a token opens, and where; for those who run the cloud."""
    with database().reading() as session:
        found = console_tokens.find(session, clock().now(), token)
    if version() < TOKENS_SINCE:
        raise errors.Unauthorized("The requested console type details are not accessible")
    port = endpoint.read_port(settings())
    shown = {"instance_uuid": found.server_id, "host": found.host, "port": port, "internal_access_path": None}
    return json({"console": shown})


def _url(server_id: str, kind: str, *, is_known: bool) -> str:
    """With a new token. Raises BadRequest for consoles there are none of, Conflict for a server without one now."""
    here = settings()
    base = endpoint.browser_url(here, base_url())
    with database().reading() as session:
        server = servers.find(session, caller(), server_id)
        if not is_known or base is None:
            raise errors.BadRequest(f"Unavailable console type {kind}.")
        others = here.broker_url is not None
        console_tokens.check_available(session, server, here.host_name if here.agent else None, others=others)
        host = server.host
    ask()(host, "check_console", server_id)
    with transaction() as session:
        server = servers.find(session, caller(), server_id)
        token = console_tokens.issue(session, clock().now(), server, ConsoleType(kind), caller())
    if kind == ConsoleType.SERIAL:
        return f"{base.replace('http', 'ws', 1)}/?token={token}"
    place = urlsplit(base).path.lstrip("/")
    return f"{base}/vnc_lite.html?path={quote(f'{place}/' if place else '', safe='')}%3Ftoken%3D{token}"
