"""The console proxy's process, with the settings in SIXSTACK_*; a child of `sixstack up`."""

import asyncio
import errno
import logging
import signal
import socket

from sqlalchemy.exc import SQLAlchemyError

from app import errors, processes
from app.clock import SystemClock
from app.consoles import address, pages
from app.consoles.proxy import Proxy
from app.db import Database
from app.settings import Settings
from compute_agent.consoles import receive
from compute_api import consoles
from compute_api.ask import LocalAsk
from compute_api.models import ConsoleToken
from hypervisor.remote_console import ConsoleKind

log = logging.getLogger("sixstack.consoles")

KINDS = {consoles.ConsoleType.NOVNC: ConsoleKind.VNC, consoles.ConsoleType.SERIAL: ConsoleKind.SERIAL}


class Consoles:
    """What the proxy asks: the database for tokens, the agent of this host for consoles."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._host, self._database, self._clock = settings.host_name, database, SystemClock()
        self._ask = LocalAsk(settings.state)

    def check(self, token: str) -> None:
        """Raises NotFound for a token that is good for nothing."""
        self._found(token)

    def open(self, token: str) -> socket.socket:
        """The connection to the console that the token is for. Raises SixstackError in words."""
        found = self._found(token)
        kind = KINDS[consoles.ConsoleType(found.console_type)]
        name = self._ask("open_console", found.server_id, kind=kind)
        try:
            return receive(name)
        except OSError:
            raise errors.Unavailable("The console does not answer just now. Try again.") from None

    def _found(self, token: str) -> ConsoleToken:
        try:
            with self._database.reading() as session:
                found = consoles.find(session, self._clock.now(), token)
        except SQLAlchemyError:
            raise errors.Unavailable("The database does not answer just now.") from None
        if found.host != self._host:
            raise errors.NotFound("Token not found")
        return found


def main() -> int:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    processes.end_with_parent()
    settings = Settings.read({})
    address.forget(settings)
    try:
        sock = bound(settings)
    except OSError as error:
        log.error("Cannot serve consoles at %s: %s. Choose another --console-listen.", settings.console_listen, error)
        return 1
    database = Database(settings.database, synchronous=settings.sqlite_synchronous, pool_size=4)
    try:
        asyncio.run(_serve(settings, database, sock))
    finally:  # the file stays: a successor may have written it already
        database.dispose()
    return 0


async def _serve(settings: Settings, database: Database, sock: socket.socket) -> None:
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    asked = Consoles(settings, database)
    root = pages.directory()
    if root is None:
        log.warning("noVNC is not installed, so there is no page for screens; scripts/setup.sh brings it")
    server = await Proxy(asked.check, asked.open, root).listen(sock)
    address.keep(settings, sock.getsockname()[1])
    await ending.wait()
    server.close()
    await server.wait_closed()


def bound(settings: Settings) -> socket.socket:
    """Where consoles are served: at `console_listen`; where nobody chose, beside the API, or at any port when that one
    is taken. Raises OSError for a place that was chosen and cannot be had."""
    host, port = settings.console_address
    family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    try:
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        if settings.console_listen or error.errno != errno.EADDRINUSE:
            raise
        return socket.create_server((place[0], 0), family=family)


if __name__ == "__main__":
    raise SystemExit(main())
