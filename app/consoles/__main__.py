"""The console proxy's process, with the settings in SIXSTACK_*; a child of `sixstack up`."""

import asyncio
import errno
import logging
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from app.console_transport import endpoint
from app.consoles import static_files
from app.consoles.backends import Consoles
from app.consoles.proxy import Proxy
from app.core import log_context, processes
from app.core.settings import Settings
from app.db.database import Database

if TYPE_CHECKING:
    from compute_api.rpc.remote_host_client import RemoteHostClient

log = logging.getLogger("sixstack.consoles")

THREADS = 64
"""Questions that wait for a host, and for the database, at a time."""


def main() -> int:
    """Serve until SIGTERM."""
    log_context.configure()
    processes.end_with_parent()
    settings = Settings.read({})
    endpoint.remove_port(settings)
    try:
        sock = bind_socket(settings)
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
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "consoles"))
    port = sock.getsockname()[1]
    remote = _remote(settings)
    asked = Consoles(settings, database, port, remote)
    root = static_files.directory()
    if root is None:
        log.warning("noVNC is not installed, so there is no page for screens; scripts/setup.sh brings it")
    server = await Proxy(asked.check, asked.open, root, asked.hosts, url=settings.console_url).listen(sock)
    endpoint.write_port(settings, port)
    await ending.wait()
    server.close()
    if remote is not None:
        await asyncio.to_thread(remote.close)  # who waits for a host waits no longer
    await server.wait_closed()


def _remote(settings: Settings) -> "RemoteHostClient | None":
    """How hosts on other computers are asked; None without a broker, and then nothing of it is even loaded."""
    if settings.broker_url is None:
        return None
    from compute_api.rpc.remote_host_client import RemoteHostClient

    return RemoteHostClient(settings.broker_url, settings.broker_authority)


def bind_socket(settings: Settings) -> socket.socket:
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
