"""Console tunnels: on request, remote hosts connect to the proxy with the console of a server.

    browser ── WebSocket ──► proxy ◄── WebSocket ── host ── qemu
                               └── RPC over the broker ──────►┘

Hosts therefore listen on no port. The request contains a random session id, valid once and while the proxy waits. The
host authenticates with an HMAC of the session by its credential.
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
    arrived: asyncio.Future[ServerConnection]


class HostConnections:
    """Pending console connections of remote hosts. `verify` checks a host's proof for a session; it may block."""

    def __init__(self, verify: Callable[[str, str, str], bool]) -> None:
        self._verify = verify
        self._expected: dict[str, _Expected] = {}

    async def wait_for_console(self, host: str, ask: Callable[[str], Awaitable[object]]) -> ConsoleStream:
        """Return the console that the host connects. `ask` sends the session to the host and returns its reply.

        Raises what `ask` raises, and Unavailable when the host does not connect after a successful reply.
        """
        session = secrets.token_urlsafe(32)
        arrived: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()
        self._expected[session] = _Expected(host, arrived)
        try:
            await ask(session)
            return WebSocketStream(await asyncio.wait_for(asyncio.shield(arrived), ARRIVAL_SECONDS))
        except BaseException as error:
            if arrived.done():
                await arrived.result().close()
            if isinstance(error, TimeoutError):
                raise errors.Unavailable("The host did not connect the console. Try again.") from None
            raise
        finally:
            self._expected.pop(session, None)

    def check(self, request: Request) -> None:
        """Raise NotFound unless the request is from a host with a pending session and a valid proof. May block."""
        session = request.path.removeprefix(HOSTS_PATH)
        expected = self._expected.get(session)
        try:
            name, proof = parse_authorization_basic(request.headers.get("Authorization", ""))
        except (InvalidHeader, UnicodeDecodeError):
            name = proof = ""
        if expected is None or expected.host != name or not self._verify(name, session, proof):
            raise errors.NotFound("No console is expected from this host.")

    async def serve(self, connection: ServerConnection) -> None:
        """Hand over a connection that has passed `check`. Returns when the console is closed."""
        assert connection.request is not None
        expected = self._expected.pop(connection.request.path.removeprefix(HOSTS_PATH), None)
        if expected is None:  # a duplicate connection, or the wait timed out
            await connection.close(1008, "No console is expected from this host.")
            return
        expected.arrived.set_result(connection)
        await connection.wait_closed()
