"""Backends of the console proxy: validates tokens in the database, opens consoles by the agent of their host."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.console_transport import endpoint
from app.console_transport.relay import ConsoleStream, SocketStream
from app.console_transport.socket_handoff import receive_console
from app.consoles.tunnels import HostConnections
from app.core import errors
from app.core.clock import SystemClock
from app.core.settings import Settings
from app.db.database import Database
from app.security.secret_cipher import SecretCipher
from compute_api.access import console_tokens, host_credentials
from compute_api.models import ConsoleToken
from compute_api.rpc.host_client import LocalHostClient
from hypervisor.api.protocol import ConsoleKind

KINDS = {console_tokens.ConsoleType.NOVNC: ConsoleKind.VNC, console_tokens.ConsoleType.SERIAL: ConsoleKind.SERIAL}


class Consoles:
    """Opens consoles by token. `remote` is the RPC client of remote hosts, which connect to this proxy at `port`."""

    def __init__(self, settings: Settings, database: Database, port: int, remote: Callable[..., Any] | None) -> None:
        self._here = settings.host_name if settings.agent else None
        self._place = {"url": endpoint.host_facing_url(settings, port), "port": port}
        self._database, self._clock = database, SystemClock()
        self._cipher = SecretCipher(settings)
        self._local, self._remote = LocalHostClient(settings.state), remote
        self.hosts = HostConnections(self._verify_proof)

    def check(self, token: str) -> None:
        """Raise NotFound for an invalid token; does not consume the token. Blocks."""
        self._find_token(token)

    async def open(self, token: str) -> ConsoleStream:
        """Consume the token, even if the console cannot be opened, and connect to its console. Raises SixstackError."""
        token_row = await asyncio.to_thread(self._consume_token, token)
        kind = KINDS[console_tokens.ConsoleType(token_row.console_type)]
        if token_row.host == self._here:
            return await SocketStream.of(await asyncio.to_thread(self._open_here, token_row.server_id, kind))

        async def ask(session: str) -> None:
            arguments = {"kind": kind, "session": session, **self._place}
            assert self._remote is not None
            await asyncio.to_thread(self._remote, token_row.host, "bring_console", token_row.server_id, **arguments)

        return await self.hosts.wait_for_console(token_row.host, ask)

    def _open_here(self, server_id: str, kind: ConsoleKind) -> socket.socket:
        name = self._local("open_console", server_id, kind=kind)
        try:
            return receive_console(name)
        except OSError:
            raise errors.Unavailable("The console is not available. Try again.") from None

    def _find_token(self, token: str) -> ConsoleToken:
        with self._map_database_errors(), self._database.reading() as session:
            return self._require_reachable(console_tokens.find(session, self._clock.now(), token))

    def _consume_token(self, token: str) -> ConsoleToken:
        with self._map_database_errors(), self._database.transaction() as session:
            return self._require_reachable(console_tokens.use(session, self._clock.now(), token))

    def _require_reachable(self, token_row: ConsoleToken) -> ConsoleToken:
        """Return the token. Raises NotFound for a token of a remote host when there is no broker."""
        if token_row.host != self._here and self._remote is None:
            raise errors.NotFound("Token not found")
        return token_row

    @contextmanager
    def _map_database_errors(self) -> Iterator[None]:
        """Convert database errors to Unavailable."""
        try:
            yield
        except SQLAlchemyError:
            raise errors.Unavailable("The database is not available.") from None

    def _verify_proof(self, host: str, session_id: str, proof: str) -> bool:
        with self._database.reading() as session:
            return host_credentials.is_valid_proof(session, self._cipher, host, session_id, proof)
