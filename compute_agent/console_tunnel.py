"""Brings consoles of this host's machines to a proxy on another computer: by a WebSocket from here, so that no port is
open here. `app/consoles/tunnels.py` is the other side."""

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
    """Consoles that are open, in a thread of its own."""

    def __init__(self, given: HostCredential) -> None:
        self._given = given
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="consoles", daemon=True)
        self._thread.start()

    def bring_console(
        self, hypervisor: Hypervisor, machine_id: str, *, kind: str, url: str | None, port: int, session: str
    ) -> None:
        """Returns when the proxy has it; it stays open until either side ends it, and ends with the agent.

        Without a `url` the proxy is where the API is, at `port`. Raises HypervisorError.
        """
        if len(self._open) >= MAX_CONSOLES:
            raise HypervisorError("Too many consoles are open on this host.")
        place = (url or _default_proxy_url(self._given.api_url, port)).replace("http", "ws", 1)
        console = hypervisor.open_console(machine_id, ConsoleKind(kind))
        try:
            self._do(self._bring(console, f"{place}{HOSTS_PATH}{session}", session))
        except (OSError, WebSocketException) as error:
            log.warning("The console proxy at %s cannot be reached: %s", place, error)
            raise HypervisorError("The host of this server does not reach the console proxy.") from None

    def close(self) -> None:
        """All of them have ended."""
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _bring(self, console: socket.socket, url: str, session: str) -> None:
        try:
            words = build_authorization_basic(self._given.name, prove(self._given.secret, session))
            headers = {"Authorization": words}
            timeouts: dict[str, Any] = {"open_timeout": OPEN_SECONDS, "close_timeout": CLOSE_SECONDS}
            taker = await connect(url, additional_headers=headers, proxy=None, **timeouts, **WEBSOCKET_OPTIONS)
        except BaseException:
            console.close()
            raise
        passing = asyncio.create_task(relay(WebSocketStream(taker), await SocketStream.of(console)))
        self._open.add(passing)
        passing.add_done_callback(self._open.discard)

    async def _end(self) -> None:
        for passing in self._open:
            passing.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _default_proxy_url(api_url: str, port: int) -> str:
    host = urlsplit(api_url).hostname or "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
