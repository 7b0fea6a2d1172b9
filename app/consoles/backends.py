"""What the proxy asks: the database for tokens, the agent of this host or another one for consoles."""

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
    """Opens what tokens are good for. `remote` asks hosts on other computers, which reach this proxy at `port`."""

    def __init__(self, settings: Settings, database: Database, port: int, remote: Callable[..., Any] | None) -> None:
        self._here = settings.host_name if settings.agent else None
        self._place = {"url": endpoint.host_facing_url(settings, port), "port": port}
        self._database, self._clock = database, SystemClock()
        self._seal = SecretCipher(settings)
        self._local, self._remote = LocalHostClient(settings.state), remote
        self.hosts = HostConnections(self._prove)

    def check(self, token: str) -> None:
        """Raises NotFound for an invalid token. Does not use it. Blocks."""
        self._found(token)

    async def open(self, token: str) -> ConsoleStream:
        """The console that the token is for. Uses it once, whether the console opens or not. Raises SixstackError."""
        found = await asyncio.to_thread(self._use, token)
        kind = KINDS[console_tokens.ConsoleType(found.console_type)]
        if found.host == self._here:
            return await SocketStream.of(await asyncio.to_thread(self._open_here, found.server_id, kind))

        async def ask(session: str) -> None:
            arguments = {"kind": kind, "session": session, **self._place}
            assert self._remote is not None
            await asyncio.to_thread(self._remote, found.host, "bring_console", found.server_id, **arguments)

        return await self.hosts.bring(found.host, ask)

    def _open_here(self, server_id: str, kind: ConsoleKind) -> socket.socket:
        name = self._local("open_console", server_id, kind=kind)
        try:
            return receive_console(name)
        except OSError:
            raise errors.Unavailable("The console does not answer just now. Try again.") from None

    def _found(self, token: str) -> ConsoleToken:
        with self._answering(), self._database.reading() as session:
            return self._reachable(console_tokens.find(session, self._clock.now(), token))

    def _use(self, token: str) -> ConsoleToken:
        with self._answering(), self._database.transaction() as session:
            return self._reachable(console_tokens.use(session, self._clock.now(), token))

    def _reachable(self, found: ConsoleToken) -> ConsoleToken:
        """Raises NotFound for a token of another host when there is no way to ask hosts."""
        if found.host != self._here and self._remote is None:
            raise errors.NotFound("Token not found")
        return found

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Raises Unavailable in place of the errors of the database."""
        try:
            yield
        except SQLAlchemyError:
            raise errors.Unavailable("The database does not answer just now.") from None

    def _prove(self, host: str, words: str, proof: str) -> bool:
        with self._database.reading() as session:
            return host_credentials.is_valid_proof(session, self._seal, host, words, proof)
