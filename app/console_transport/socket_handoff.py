"""Passes console connections from the agent to the console proxy over a one-time Unix socket (SCM_RIGHTS).

The socket is in the abstract namespace under a random name; SO_PEERCRED restricts it to one user.
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
    """Open a machine's console and return the name of the abstract Unix socket that passes on its file descriptor.

    Only processes of the uid `taker` (default: the own one) receive it, within HANDOVER_SECONDS.
    """
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
    """Receive the console connection from the socket of that name. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as giver:
        giver.settimeout(HANDOVER_SECONDS)
        giver.connect(f"\0{name}")
        _, descriptors, _, _ = socket.recv_fds(giver, 1, 1)
    if not descriptors:
        raise ConnectionError("no file descriptor received")
    return socket.socket(fileno=descriptors[0])


def _serve_handoff(listener: socket.socket, connection: socket.socket, user: int) -> None:
    until = time.monotonic() + HANDOVER_SECONDS
    with listener, connection:
        try:
            while (left := until - time.monotonic()) > 0:
                listener.settimeout(left)
                taker, _ = listener.accept()
                with taker:
                    peer = taker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
                    if CREDENTIALS.unpack(peer)[1] == user:
                        socket.send_fds(taker, [b"."], [connection.fileno()])
                        return
        except OSError as error:
            log.warning("A console was opened but not collected: %s", error)
