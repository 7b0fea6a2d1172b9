"""Ways to a guest's screen and serial console: connected sockets, made by qemu's control socket and by no listener.

qemu is handed one end of a pair for its VNC server, so no port and no path leads to a screen. The serial console is a
socket in the machine's directory that takes one client at a time; qemu writes to the log whether there is one or not.
"""

import contextlib
import socket
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient

from hypervisor.api.errors import HypervisorError
from hypervisor.qemu import qmp

TIMEOUT_SECONDS = 10.0


def open_screen(control: Path) -> socket.socket:
    """A connection to the guest's VNC server, which asks for no password. Raises as `qmp.run_session` does."""
    ours, theirs = socket.socketpair()
    with theirs:

        async def converse(client: QMPClient) -> None:
            client.send_fd_scm(theirs.fileno())
            await client.execute("getfd", {"fdname": "screen"})
            await client.execute("add_client", {"protocol": "vnc", "fdname": "screen", "skipauth": True})

        try:
            qmp.run_session(control, converse)
        except BaseException:
            ours.close()
            raise
    return ours


def open_serial(control: Path, path: Path) -> socket.socket:
    """A connection to the guest's serial console. Raises HypervisorError when somebody else has it."""

    async def converse(client: QMPClient) -> bool:
        devices: Any = await client.execute("query-chardev")
        return any(one["label"] == "console" and one["filename"].startswith("disconnected:") for one in devices)

    if not qmp.run_session(control, converse):
        raise HypervisorError("The serial console is in use.")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        connection.settimeout(TIMEOUT_SECONDS)
        try:
            with qmp.short_name(path) as name:
                connection.connect(name)
        except OSError as error:
            raise HypervisorError("The serial console does not answer.") from error
        connection.settimeout(None)
        undo.pop_all()
    return connection
