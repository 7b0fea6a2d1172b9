"""Whether a chunked body ended, or its connection did: granian tells an application both in the same way.

WSGI has no word for it, so we look at the connection itself. The server does not say which one a request came by; but
ours was open when the request began, comes from the client's address, and has received at least what we have read. A
connection that broke is half closed, reset or gone by the time its body ends; one whose body is complete waits for
the answer. Should a second connection fit as well, both must be whole: an upload is refused once too often rather
than stored cut off.
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, NamedTuple

ESTABLISHED = 1
BYTES_RECEIVED = 128
"""Where `tcpi_bytes_received` is in Linux's struct tcp_info."""
RESET = "reset"
"""The peer of a connection that has none any more."""
LOOK_EVERY = 64
"""Pieces between two looks, after the first few."""


class _Connection(NamedTuple):
    state: int
    received: int


class Wire:
    """The connections that a request may have come by. Made before its body is read."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._peer = _plain(str(environ.get("REMOTE_ADDR", "")))
        self._port = str(environ.get("SERVER_PORT", ""))
        self._candidates = set(self._connections())
        self._gone = False
        self._looks = 0

    def received(self, count: int) -> None:
        """So many bytes of the body were read: connections that brought fewer are not ours."""
        self._looks += 1
        if self._looks <= 4 or self._looks % LOOK_EVERY == 0:
            self._look(count)

    def whole(self, count: int) -> bool:
        """Whether the client is still there at the end of the body. True where nothing can be seen at all."""
        had_any = bool(self._candidates) or self._gone
        found = self._look(count)
        return not had_any or (bool(found) and not self._gone and all(one.state == ESTABLISHED for one in found))

    def _look(self, count: int) -> list[_Connection]:
        now = self._connections()
        for key in list(self._candidates):
            if key not in now:
                self._gone = True
                self._candidates.remove(key)
            elif now[key].received <= count:
                self._candidates.remove(key)
        return [now[key] for key in self._candidates]

    def _connections(self) -> dict[tuple[str, int], _Connection]:
        """This process's connections from the client to the server's port, by the client's end."""
        found = _connections(self._port)
        return {key: one for key, one in found if key[0] in (self._peer, RESET) and one.received > 0}


def _connections(port: str) -> Iterator[tuple[tuple[str, int], _Connection]]:
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as connection:
                    internet = connection.family in (socket.AF_INET, socket.AF_INET6)
                    stream = connection.type == socket.SOCK_STREAM
                    if internet and stream and str(connection.getsockname()[1]) == port and not _listens(connection):
                        yield _described(connection, int(name))


def _listens(connection: socket.socket) -> bool:
    return bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _described(connection: socket.socket, number: int) -> tuple[tuple[str, int], _Connection]:
    try:
        host, port = connection.getpeername()[:2]
    except OSError:
        host, port = RESET, number
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_RECEIVED + 8)
    received = struct.unpack_from("=Q", info, BYTES_RECEIVED)[0] if len(info) >= BYTES_RECEIVED + 8 else 1 << 62
    return (_plain(host), port), _Connection(info[0], received)


def _plain(host: str) -> str:
    """An address without its zone, and IPv4 as itself where it came through an IPv6 socket."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return str(getattr(address, "ipv4_mapped", None) or address)
