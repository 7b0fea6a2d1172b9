"""WebSocket server of the console proxy: validates the token on connect, then relays bytes until either side closes.

Tokens are in the query string, as in Nova, so request lines are never logged.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from app.console_transport.relay import HOSTS_PATH, WEBSOCKET_OPTIONS, ConsoleStream, WebSocketStream, relay
from app.consoles import static_files, tunnels
from app.core import errors

log = logging.getLogger("sixstack.consoles")

CONNECTIONS = 256
BINARY = Subprotocol("binary")
Opener = Callable[[str], Awaitable[ConsoleStream]]
"""Opens the console of a token. Raises SixstackError with a message for the user."""


class Proxy:
    """Console server for browsers. `check` validates a token and may block; `opener` opens its console.

    `expected` are the connections of remote hosts, None without a broker. `url` is the public URL of this proxy, if it
    differs from the address it listens at.
    """

    def __init__(
        self,
        check: Callable[[str], None],
        opener: Opener,
        root: Path | None,
        expected: tunnels.HostConnections | None = None,
        *,
        url: str | None = None,
        limit: int = CONNECTIONS,
    ) -> None:
        self._check, self._opener, self._root, self._hosts, self._limit = check, opener, root, expected, limit
        self._origin = urlsplit(url or "").netloc.lower()
        self._connected = 0

    async def listen(self, sock: socket.socket) -> Server:
        """Start serving on a bound socket."""
        return await serve(
            self._serve_console,
            sock=sock,
            process_request=self._process_request,
            select_subprotocol=_subprotocol,
            server_header="Sixstack",
            **WEBSOCKET_OPTIONS,
        )

    async def _process_request(self, _connection: ServerConnection, request: Request) -> Response | None:
        """Respond to plain HTTP requests and reject invalid WebSockets; None accepts the WebSocket."""
        target = urlsplit(request.path)
        is_socket = request.headers.get("Upgrade", "").lower() == "websocket"
        if is_socket and not self._same_origin(request):
            return static_files.plain(HTTPStatus.FORBIDDEN, "This page may not open consoles here.")
        try:
            if is_socket and self._hosts is not None and _is_host(request):
                await asyncio.to_thread(self._hosts.check, request)
                return None
            if is_socket and self._connected >= self._limit:
                return static_files.plain(
                    HTTPStatus.SERVICE_UNAVAILABLE, "Too many consoles are open. Try again later."
                )
            token = _token(request.path) if is_socket else _token_of_page(target.query)
            if token is not None:
                await asyncio.to_thread(self._check, token)
        except errors.NotFound:
            # No body for WebSocket clients: tempest would parse it as frames.
            return static_files.plain(HTTPStatus.FORBIDDEN, "" if is_socket else "The token is invalid or has expired.")
        except Exception as error:
            log.warning("Validating a console token failed: %s", type(error).__name__)
            return static_files.plain(
                HTTPStatus.SERVICE_UNAVAILABLE, "Consoles are temporarily unavailable. Try again."
            )
        return None if is_socket else await asyncio.to_thread(static_files.page, self._root, target.path)

    async def _serve_console(self, client: ServerConnection) -> None:
        assert client.request is not None
        if self._hosts is not None and _is_host(client.request):
            await self._hosts.serve(client)
            return
        if self._connected >= self._limit:
            await client.close(1013, "Too many consoles are open.")
            return
        self._connected += 1
        try:
            try:
                console = await self._opener(_token(client.request.path))
            except errors.SixstackError as error:
                await client.close(1011, error.message.encode()[:120].decode(errors="ignore"))
                return
            except Exception as error:
                log.warning("Opening a console failed: %s", type(error).__name__)
                await client.close(1011, "The console is temporarily unavailable.")
                return
            await relay(WebSocketStream(client), console)
        finally:
            self._connected -= 1

    def _same_origin(self, request: Request) -> bool:
        """Whether the Origin header names this proxy. Clients other than browsers send none."""
        origins = request.headers.get_all("Origin")
        if not origins:
            return True
        here = {self._origin, *map(str.lower, request.headers.get_all("Host")[:1])} - {""}
        return len(origins) == 1 and urlsplit(origins[0]).netloc.lower() in here


def _is_host(request: Request) -> bool:
    return request.path.startswith(HOSTS_PATH)


def _token(path: str) -> str:
    return parse_qs(urlsplit(path).query).get("token", [""])[0]


def _token_of_page(query: str) -> str | None:
    """Return the token in the query of noVNC's page, to reject it here: noVNC shows no message for an invalid one."""
    path = parse_qs(query).get("path")
    return _token(path[0]) if path else None


def _subprotocol(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Select `binary`, which old versions of noVNC offer; current ones offer no subprotocol."""
    return BINARY if BINARY in offered else None
