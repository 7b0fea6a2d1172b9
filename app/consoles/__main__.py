"""Process of the console proxy, a child of `sixstack up`; reads its settings from SIXSTACK_*."""

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
"""Concurrent blocking calls: RPC to hosts, and database queries."""


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
    finally:  # keep the port file: a new proxy may have written it already
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
        log.warning("noVNC is not installed; there is no web page for screens. Install it with scripts/setup.sh")
    server = await Proxy(asked.check, asked.open, root, asked.hosts, url=settings.console_url).listen(sock)
    endpoint.write_port(settings, port)
    await ending.wait()
    server.close()
    if remote is not None:
        await asyncio.to_thread(remote.close)  # fails calls that wait for a host
    await server.wait_closed()


def _remote(settings: Settings) -> "RemoteHostClient | None":
    """Return the RPC client of remote hosts; None without a broker, which also avoids importing it."""
    if settings.broker_url is None:
        return None
    from compute_api.rpc.remote_host_client import RemoteHostClient

    return RemoteHostClient(settings.broker_url, settings.broker_authority)


def bind_socket(settings: Settings) -> socket.socket:
    """Bind `console_listen`. When it is unset, bind the port after the API's, or any free port if that is taken.

    Raises OSError when the configured address is not available.
    """
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
