"""RPC client of a host's agent: console log, diagnostics, migration progress.

One JSON line in each direction over a Unix socket in the state directory.
"""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from app.core import errors
from compute_api.rpc.notify import RPC_SOCKET_NAME, short_socket_path

TIMEOUT_SECONDS = 30.0


class HostClient:
    """Routes requests to the local agent (Unix socket) or a remote one (broker)."""

    def __init__(self, here: str | None, local: "LocalHostClient", remote: Callable[..., Any] | None) -> None:
        self._here, self._local, self._remote = here, local, remote

    def __call__(self, host: str | None, method: str, machine_id: str, **arguments: Any) -> Any:
        """Return the answer. Raises Unavailable when the agent does not reply, Conflict with its error."""
        if host is None:
            raise errors.Conflict("This server is not on a host at the moment.")
        if host == self._here or self._remote is None:
            return self._local(method, machine_id, **arguments)
        return self._remote(host, method, machine_id, **arguments)


class LocalHostClient:
    """Sends requests to the agent on this machine."""

    def __init__(self, state: Path) -> None:
        self._path = state / RPC_SOCKET_NAME

    def __call__(self, method: str, machine_id: str, **arguments: Any) -> Any:
        """Return the answer. Raises Unavailable when the agent does not reply, Conflict with its error."""
        request = orjson.dumps({"question": method, "machine_id": machine_id, **arguments}) + b"\n"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(TIMEOUT_SECONDS)
                with short_socket_path(self._path) as name:
                    connection.connect(name)
                connection.sendall(request)
                with connection.makefile("rb") as lines:
                    answer = orjson.loads(lines.readline())
        except (OSError, orjson.JSONDecodeError):
            raise errors.Unavailable("The host of this server does not respond. Try again.") from None
        if "error" in answer:
            raise errors.Conflict(answer["error"])
        return answer["answer"]
