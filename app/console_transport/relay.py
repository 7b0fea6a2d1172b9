"""The two ends of a console, a socket to qemu or a WebSocket, and what passes bytes between them until one has ended.

Nothing is kept in between: an end is not read while the other one does not take what came.
"""

import asyncio
import contextlib
import logging
import socket
from typing import Any, Protocol

from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed

MESSAGE_BYTES = 1 << 20
WAITING_MESSAGES = 4
CHUNK_BYTES = 1 << 16

websocket_log = logging.getLogger("sixstack.consoles.websockets")
websocket_log.setLevel(logging.CRITICAL)  # its words have request lines in them, and those have tokens

WEBSOCKET_OPTIONS: dict[str, Any] = {
    "max_size": MESSAGE_BYTES,
    "max_queue": WAITING_MESSAGES,
    "compression": None,
    "logger": websocket_log,
}
"""How WebSockets are opened, by whoever opens them. Who does not answer to a ping for 20 seconds has ended."""


class ConsoleStream(Protocol):
    """One end. What it raises are OSError and ConnectionClosed, which mean that it has ended."""

    async def receive(self) -> bytes:
        """What came; empty when nothing will come any more."""
        ...

    async def send(self, received: bytes) -> None:
        """Returns when there is room for more."""
        ...

    async def close(self) -> None:
        """It has ended. Never waits for a peer that does not read."""
        ...


class SocketStream:
    """A connected socket, such as one to qemu."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def of(cls, connection: socket.socket) -> "SocketStream":
        """Owns the socket from now on."""
        connection.setblocking(False)
        return cls(*await asyncio.open_connection(sock=connection))

    async def receive(self) -> bytes:
        return await self._reader.read(CHUNK_BYTES)

    async def send(self, received: bytes) -> None:
        self._writer.write(received)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class WebSocketStream:
    """A browser, a proxy or a host."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def receive(self) -> bytes:
        while not (message := await self._connection.recv(decode=False)):
            pass  # an empty message is no end
        return message

    async def send(self, received: bytes) -> None:
        await self._connection.send(received)

    async def close(self) -> None:
        await self._connection.close(1000, "The console has ended.")


async def relay(one: ConsoleStream, other: ConsoleStream) -> None:
    """Until either end has ended; then both have."""
    ways = [asyncio.create_task(_copy(one, other)), asyncio.create_task(_copy(other, one))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        try:
            for way in ways:
                with contextlib.suppress(asyncio.CancelledError):
                    await way
        finally:
            await asyncio.gather(one.close(), other.close())


async def _copy(source: ConsoleStream, target: ConsoleStream) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        while received := await source.receive():
            await target.send(received)


HOSTS_PATH = "/hosts/"
"""Where hosts connect to the console proxy; the rest of the path is the session."""
