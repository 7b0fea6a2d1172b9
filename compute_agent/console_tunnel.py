"""Reverse tunnel for consoles: connects this host's consoles to the console proxy by outgoing WebSockets, so that no
port is open here. `app/consoles/tunnels.py` is the other side."""

import asyncio
import logging
import socket
import threading
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.headers import build_authorization_basic

from app.console_transport.relay import HOSTS_PATH, WEBSOCKET_OPTIONS, SocketStream, WebSocketStream, relay
from compute_agent.credential import HostCredential
from compute_api.access.host_proof import prove
from hypervisor.api.errors import HypervisorError
from hypervisor.api.protocol import ConsoleKind, Hypervisor

log = logging.getLogger(__name__)

MAX_CONSOLES = 64
OPEN_SECONDS = 10.0
CLOSE_SECONDS = 2.0


class ConsoleTunnels:
    """Open console tunnels, served by an event loop in a thread of its own."""

    def __init__(self, credential: HostCredential) -> None:
        self._credential = credential
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="consoles", daemon=True)
        self._thread.start()

    def bring_console(
        self, hypervisor: Hypervisor, machine_id: str, *, kind: str, url: str | None, port: int, session: str
    ) -> None:
        """Open a tunnel; returns when the proxy has accepted it. Either side may end it.

        Without a `url` the proxy is on the API's host at `port`. Raises HypervisorError.
        """
        if len(self._open) >= MAX_CONSOLES:
            raise HypervisorError("Too many consoles are open on this host.")
        proxy_url = (url or _default_proxy_url(self._credential.api_url, port)).replace("http", "ws", 1)
        console = hypervisor.open_console(machine_id, ConsoleKind(kind))
        try:
            self._run(self._open_tunnel(console, f"{proxy_url}{HOSTS_PATH}{session}", session))
        except (OSError, WebSocketException) as error:
            log.warning("The console proxy at %s cannot be reached: %s", proxy_url, error)
            raise HypervisorError("The host of this server cannot reach the console proxy.") from None

    def close(self) -> None:
        """Close all tunnels and stop the thread."""
        self._run(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open_tunnel(self, console: socket.socket, url: str, session: str) -> None:
        try:
            authorization = build_authorization_basic(self._credential.name, prove(self._credential.secret, session))
            headers = {"Authorization": authorization}
            timeouts: dict[str, Any] = {"open_timeout": OPEN_SECONDS, "close_timeout": CLOSE_SECONDS}
            websocket = await connect(url, additional_headers=headers, proxy=None, **timeouts, **WEBSOCKET_OPTIONS)
        except BaseException:
            console.close()
            raise
        task = asyncio.create_task(relay(WebSocketStream(websocket), await SocketStream.of(console)))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _cancel_all(self) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _default_proxy_url(api_url: str, port: int) -> str:
    host = urlsplit(api_url).hostname or "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
