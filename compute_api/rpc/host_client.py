"""Asks a host something about a machine and waits for the answer: what is on its console, how it is doing.

One JSON line each way over a Unix socket in the state directory.
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
    """Asks the host's agent in the way that leads there: the agent on this machine, or those on others."""

    def __init__(self, here: str | None, local: "LocalHostClient", remote: Callable[..., Any] | None) -> None:
        self._here, self._local, self._remote = here, local, remote

    def __call__(self, host: str | None, question: str, machine_id: str, **arguments: Any) -> Any:
        """The answer. Raises Unavailable when the agent is not there, Conflict with its words when it cannot say."""
        if host is None:
            raise errors.Conflict("This server is on no host just now.")
        if host == self._here or self._remote is None:
            return self._local(question, machine_id, **arguments)
        return self._remote(host, question, machine_id, **arguments)


class LocalHostClient:
    """Asks the agent on this machine."""

    def __init__(self, state: Path) -> None:
        self._path = state / RPC_SOCKET_NAME

    def __call__(self, question: str, machine_id: str, **arguments: Any) -> Any:
        """The answer. Raises Unavailable when the agent is not there, Conflict with its words when it cannot say."""
        request = orjson.dumps({"question": question, "machine_id": machine_id, **arguments}) + b"\n"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(TIMEOUT_SECONDS)
                with short_socket_path(self._path) as name:
                    connection.connect(name)
                connection.sendall(request)
                with connection.makefile("rb") as lines:
                    answer = orjson.loads(lines.readline())
        except (OSError, orjson.JSONDecodeError):
            raise errors.Unavailable("The host of this server does not answer just now. Try again.") from None
        if "error" in answer:
            raise errors.Conflict(answer["error"])
        return answer["answer"]
