"""Serves consoles: checks the token once, when a browser connects, then passes bytes both ways until one side ends.

Tokens come in the query, as Nova's do, so no request line is ever logged.
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
"""From a token to its console. Raises SixstackError in words for the user."""


class Proxy:
    """Consoles for browsers. `check` looks whether a token is good, and may block; `opener` opens its console.

    `expected` are hosts on other computers that bring consoles, where there are any. `url` is where browsers find this
    proxy, if that is not where it listens.
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
        """Begin to serve on a bound socket."""
        return await serve(
            self._talk,
            sock=sock,
            process_request=self._request,
            select_subprotocol=_subprotocol,
            server_header="Sixstack",
            **WEBSOCKET_OPTIONS,
        )

    async def _request(self, _connection: ServerConnection, request: Request) -> Response | None:
        """None lets a WebSocket through; everything else is answered here."""
        asked = urlsplit(request.path)
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
            token = _token(request.path) if is_socket else _token_of_page(asked.query)
            if token is not None:
                await asyncio.to_thread(self._check, token)
        except errors.NotFound:
            # Who opens a WebSocket reads no words, and tempest takes them for frames.
            return static_files.plain(
                HTTPStatus.FORBIDDEN, "" if is_socket else "The token is not valid, or not any more."
            )
        except Exception as error:
            log.warning("A token could not be checked: %s", type(error).__name__)
            return static_files.plain(HTTPStatus.SERVICE_UNAVAILABLE, "Consoles cannot be opened just now. Try again.")
        return None if is_socket else await asyncio.to_thread(static_files.page, self._root, asked.path)

    async def _talk(self, client: ServerConnection) -> None:
        assert client.request is not None
        if self._hosts is not None and _is_host(client.request):
            await self._hosts.arrive(client)
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
                log.warning("A console could not be opened: %s", type(error).__name__)
                await client.close(1011, "The console cannot be opened just now.")
                return
            await relay(WebSocketStream(client), console)
        finally:
            self._connected -= 1

    def _same_origin(self, request: Request) -> bool:
        """Browsers say where their page is from: from here. What is no browser says nothing."""
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
    """What noVNC's page will show; noVNC itself has no words for tokens that are not good any more."""
    path = parse_qs(query).get("path")
    return _token(path[0]) if path else None


def _subprotocol(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """noVNC of today offers none, older ones `binary`."""
    return BINARY if BINARY in offered else None
