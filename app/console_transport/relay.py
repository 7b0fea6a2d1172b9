"""Relays bytes between the two streams of a console, each a socket to qemu or a WebSocket, until either is closed.

Applies backpressure: a stream is not read while the other one accepts no bytes.
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
websocket_log.setLevel(logging.CRITICAL)  # its messages contain request lines with tokens

WEBSOCKET_OPTIONS: dict[str, Any] = {
    "max_size": MESSAGE_BYTES,
    "max_queue": WAITING_MESSAGES,
    "compression": None,
    "logger": websocket_log,
}
"""Options of WebSockets on both sides. Peers that do not respond to a ping within 20 seconds are disconnected."""


class ConsoleStream(Protocol):
    """A byte stream. Its methods raise OSError or ConnectionClosed when it is closed."""

    async def receive(self) -> bytes:
        """Return the next bytes; empty at the end of the stream."""
        ...

    async def send(self, received: bytes) -> None:
        """Send bytes; returns when the buffer has room for more."""
        ...

    async def close(self) -> None:
        """Close the stream. Never waits for a peer that does not read."""
        ...


class SocketStream:
    """A connected socket, such as one to qemu."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def of(cls, connection: socket.socket) -> "SocketStream":
        """Wrap the socket and take ownership of it."""
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
    """A WebSocket to a browser, proxy or host."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def receive(self) -> bytes:
        while not (message := await self._connection.recv(decode=False)):
            pass  # skip empty messages, which do not mean the end
        return message

    async def send(self, received: bytes) -> None:
        await self._connection.send(received)

    async def close(self) -> None:
        await self._connection.close(1000, "The console has ended.")


async def relay(one: ConsoleStream, other: ConsoleStream) -> None:
    """Copy bytes in both directions until either stream closes, then close both."""
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
"""Path prefix of WebSockets of hosts to the console proxy; the rest of the path is the session."""
