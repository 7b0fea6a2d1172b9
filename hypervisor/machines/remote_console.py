"""Connections to a guest's screen and serial console.

qemu receives one end of a socket pair for its VNC server over QMP, so the screen has no listener. The serial console is
a Unix socket in the machine's directory with one client at a time; qemu writes the console log in either case.
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
    """Connect to the guest's VNC server without a password. Raises as `qmp.run_session` does."""
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
    """Connect to the guest's serial console. Raises HypervisorError when it is in use."""

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
