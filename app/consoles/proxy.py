"""Serves consoles: checks the token once, when a browser connects, then passes bytes both ways until one side ends.

Tokens come in the query, as Nova's do, so no request line is ever logged.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from app import errors
from app.consoles import pages

log = logging.getLogger("sixstack.consoles")

CONNECTIONS = 256
CHUNK_BYTES = 1 << 16
BINARY = Subprotocol("binary")
Opener = Callable[[str], socket.socket]
"""From a token to the console's connection. Raises SixstackError in words for the user."""


class Proxy:
    """Consoles for browsers. `check` looks whether a token is good, `opener` opens its console; both may block."""

    def __init__(
        self, check: Callable[[str], None], opener: Opener, root: Path | None, *, limit: int = CONNECTIONS
    ) -> None:
        self._check, self._opener, self._root, self._limit = check, opener, root, limit
        self._connected = 0

    async def listen(self, sock: socket.socket) -> Server:
        """Begin to serve on a bound socket."""
        quiet = logging.getLogger("sixstack.consoles.websockets")
        quiet.setLevel(logging.CRITICAL)  # its words have request lines in them, and those have tokens
        return await serve(
            self._talk,
            sock=sock,
            process_request=self._request,
            select_subprotocol=_subprotocol,
            max_size=1 << 20,
            max_queue=16,
            compression=None,
            logger=quiet,
            server_header="Sixstack",
        )

    async def _request(self, _connection: ServerConnection, request: Request) -> Response | None:
        """None lets a WebSocket through; everything else is answered here."""
        asked = urlsplit(request.path)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return await asyncio.to_thread(pages.page, self._root, asked.path)
        if not _same_origin(request):
            return pages.plain(HTTPStatus.FORBIDDEN, "This page may not open consoles here.")
        if self._connected >= self._limit:
            return pages.plain(HTTPStatus.SERVICE_UNAVAILABLE, "Too many consoles are open. Try again later.")
        try:
            await asyncio.to_thread(self._check, _token(request))
        except errors.NotFound:
            return pages.plain(HTTPStatus.FORBIDDEN, "The token is not valid, or not any more.")
        except Exception as error:
            log.warning("A token could not be checked: %s", type(error).__name__)
            return pages.plain(HTTPStatus.SERVICE_UNAVAILABLE, "Consoles cannot be opened just now. Try again.")
        return None

    async def _talk(self, client: ServerConnection) -> None:
        if self._connected >= self._limit:
            await client.close(1013, "Too many consoles are open.")
            return
        assert client.request is not None
        self._connected += 1
        try:
            try:
                console = await asyncio.to_thread(self._opener, _token(client.request))
            except errors.SixstackError as error:
                await client.close(1011, error.message.encode()[:120].decode(errors="ignore"))
                return
            except Exception as error:
                log.warning("A console could not be opened: %s", type(error).__name__)
                await client.close(1011, "The console cannot be opened just now.")
                return
            await _pass_both_ways(client, console)
        finally:
            self._connected -= 1


async def _pass_both_ways(client: ServerConnection, console: socket.socket) -> None:
    """Until either side ends; then both have."""
    console.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=console)

    async def outward() -> None:
        while received := await reader.read(CHUNK_BYTES):
            await client.send(received)

    async def inward() -> None:
        async for message in client:
            writer.write(message if isinstance(message, bytes) else message.encode())
            await writer.drain()

    ways = [asyncio.create_task(outward()), asyncio.create_task(inward())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        for way in ways:
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed, OSError):
                await way
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await client.close(1000, "The console has ended.")


def _token(request: Request) -> str:
    return parse_qs(urlsplit(request.path).query).get("token", [""])[0]


def _subprotocol(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """noVNC of today offers none, older ones `binary`."""
    return BINARY if BINARY in offered else None


def _same_origin(request: Request) -> bool:
    """Browsers say where their page is from: from here. What is no browser says nothing."""
    origins = request.headers.get_all("Origin")
    if not origins:
        return True
    hosts = request.headers.get_all("Host")
    return len(origins) == 1 and len(hosts) == 1 and urlsplit(origins[0]).netloc.lower() == hosts[0].lower()
