"""Screen and serial console of a real guest, opened on the host: output, input and removal with the machine."""

import socket
import struct
from pathlib import Path

import pytest

from hypervisor.api.errors import HypervisorError
from hypervisor.api.protocol import ConsoleKind
from tests.host.support import HostMaker, OneImage, image_ref, make_spec

VIRTUAL_BYTES = 44_040_192
SECONDS = 90.0


def test_a_screen_and_a_serial_console(make_host: HostMaker, tiny_image: Path) -> None:
    spec = make_spec(1, image_ref(tiny_image, "qcow2", VIRTUAL_BYTES))
    host = make_host(OneImage(tiny_image))
    with pytest.raises(HypervisorError, match="does not run"):
        host.open_console(spec.id, ConsoleKind.VNC)
    host.ensure_running(spec)

    with host.open_console(spec.id, ConsoleKind.SERIAL) as serial:
        serial.settimeout(SECONDS)
        with pytest.raises(HypervisorError, match="in use"):
            host.open_console(spec.id, ConsoleKind.SERIAL)
        seen = b""
        while b"login:" not in seen:
            seen += serial.recv(4096)
        serial.sendall(b"nobody-is-called-this\r")
        while b"nobody-is-called-this" not in seen:
            seen += serial.recv(4096)
        assert b"login:" in host.console_log(spec.id), "the log goes on while somebody looks"

        with host.open_console(spec.id, ConsoleKind.VNC) as screen:
            screen.settimeout(SECONDS)
            width, height = shake_hands(screen)
            assert width >= 640
            assert height >= 400
            screen.sendall(struct.pack(">BBxxI", 4, 1, 0xFF0D) + struct.pack(">BBxxI", 4, 0, 0xFF0D))
            screen.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
            assert exactly(screen, 1) == b"\0", "the picture comes"
            host.remove(spec.id)
            while screen.recv(65536):
                pass
        while serial.recv(65536):
            pass


def shake_hands(screen: socket.socket) -> tuple[int, int]:
    """Perform the RFB 3.8 handshake without a password and return the screen size."""
    assert exactly(screen, 12) == b"RFB 003.008\n"
    screen.sendall(b"RFB 003.008\n")
    kinds = exactly(screen, exactly(screen, 1)[0])
    assert 1 in kinds
    screen.sendall(b"\x01")
    assert exactly(screen, 4) == b"\0\0\0\0"
    screen.sendall(b"\x01")
    width, height = struct.unpack(">HH", exactly(screen, 4))
    exactly(screen, 16)
    exactly(screen, struct.unpack(">I", exactly(screen, 4))[0])
    return width, height


def exactly(connection: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        more = connection.recv(length - len(received))
        assert more, f"it ended after {received!r}"
        received += more
    return received
