"""Consoles of servers on other computers: their hosts bring them here, each when it was asked to.

    browser ── WebSocket ──► proxy ◄── WebSocket ── host ── qemu
                               └── question, by the broker ──►┘

So hosts listen nowhere. The question has a session: random, known to that host only, good once and while the proxy
waits. The host answers to it with a proof that needs its credential and does not tell it.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import InvalidHeader
from websockets.headers import parse_authorization_basic
from websockets.http11 import Request

from app.console_transport.relay import HOSTS_PATH, ConsoleStream, WebSocketStream
from app.core import errors

ARRIVAL_SECONDS = 10.0


@dataclass(frozen=True)
class _Expected:
    host: str
    came: asyncio.Future[ServerConnection]


class HostConnections:
    """Who is expected with a console. `prove` knows whether a host's proof for a session holds; it may block."""

    def __init__(self, prove: Callable[[str, str, str], bool]) -> None:
        self._prove = prove
        self._expected: dict[str, _Expected] = {}

    async def bring(self, host: str, ask: Callable[[str], Awaitable[object]]) -> ConsoleStream:
        """The console that the host brings. `ask` is given the session, asks the host, and returns when it has come.

        Raises what `ask` raises, and Unavailable when the host is not here although it says so.
        """
        session = secrets.token_urlsafe(32)
        came: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()
        self._expected[session] = _Expected(host, came)
        try:
            await ask(session)
            return WebSocketStream(await asyncio.wait_for(asyncio.shield(came), ARRIVAL_SECONDS))
        except BaseException as error:
            if came.done():
                await came.result().close()
            if isinstance(error, TimeoutError):
                raise errors.Unavailable("The host did not bring the console. Try again.") from None
            raise
        finally:
            self._expected.pop(session, None)

    def check(self, request: Request) -> None:
        """Raises NotFound unless it is a host that is expected. May block."""
        session = request.path.removeprefix(HOSTS_PATH)
        expected = self._expected.get(session)
        try:
            name, proof = parse_authorization_basic(request.headers.get("Authorization", ""))
        except (InvalidHeader, UnicodeDecodeError):
            name = proof = ""
        if expected is None or expected.host != name or not self._prove(name, session, proof):
            raise errors.NotFound("No console is expected from there.")

    async def arrive(self, connection: ServerConnection) -> None:
        """It has passed `check`. Returns when its console has ended."""
        assert connection.request is not None
        expected = self._expected.pop(connection.request.path.removeprefix(HOSTS_PATH), None)
        if expected is None:  # it came twice, or nobody waits any more
            await connection.close(1008, "No console is expected from there.")
            return
        expected.came.set_result(connection)
        await connection.wait_closed()
