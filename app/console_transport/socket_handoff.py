"""Hands connections to consoles to the process that serves them: by a socket that is there once, for a few seconds.

Its name is random and has no file; only processes of one user get what it has.
"""

import logging
import os
import secrets
import socket
import struct
import threading
import time

from hypervisor.api.protocol import ConsoleKind, Hypervisor

log = logging.getLogger(__name__)

HANDOVER_SECONDS = 10.0
CREDENTIALS = struct.Struct("3i")


def open_console(hypervisor: Hypervisor, machine_id: str, kind: str, *, taker: int | None = None) -> str:
    """The name of the abstract Unix socket where the console's connection is handed over to a process of the user
    `taker`, our own by default."""
    connection = hypervisor.open_console(machine_id, ConsoleKind(kind))
    name = f"sixstack-console-{secrets.token_hex(16)}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(f"\0{name}")
        listener.listen(1)
    except OSError:
        listener.close()
        connection.close()
        raise
    user = os.geteuid() if taker is None else taker
    threading.Thread(target=_serve_handoff, args=(listener, connection, user), name="console", daemon=True).start()
    return name


def receive_console(name: str) -> socket.socket:
    """The connection that is handed over there. Raises OSError when it is not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as giver:
        giver.settimeout(HANDOVER_SECONDS)
        giver.connect(f"\0{name}")
        _, descriptors, _, _ = socket.recv_fds(giver, 1, 1)
    if not descriptors:
        raise ConnectionError("no console was handed over")
    return socket.socket(fileno=descriptors[0])


def _serve_handoff(listener: socket.socket, connection: socket.socket, user: int) -> None:
    until = time.monotonic() + HANDOVER_SECONDS
    with listener, connection:
        try:
            while (left := until - time.monotonic()) > 0:
                listener.settimeout(left)
                taker, _ = listener.accept()
                with taker:
                    asked = taker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
                    if CREDENTIALS.unpack(asked)[1] == user:
                        socket.send_fds(taker, [b"."], [connection.fileno()])
                        return
        except OSError as error:
            log.warning("A console was opened and not fetched: %s", error)
