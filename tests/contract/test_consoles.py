"""Consoles end to end: `openstack console url show`, a WebSocket, and a real guest."""

import json
import re
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from openstack.connection import Connection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from app.consoles import static_files
from tests.contract.conftest import Cloud, wait_until

SECONDS = 90.0


class Stream:
    """Byte stream of a WebSocket's messages."""

    def __init__(self, client: ClientConnection) -> None:
        self._client, self._rest = client, b""

    def exactly(self, length: int) -> bytes:
        while len(self._rest) < length:
            message = self._client.recv(SECONDS)
            assert isinstance(message, bytes)
            self._rest += message
        taken, self._rest = self._rest[:length], self._rest[length:]
        return taken

    def until(self, words: bytes) -> bytes:
        seen = b""
        while words not in seen:
            seen += self.exactly(1)
        return seen


def url(cloud: Cloud, option: str, name: str) -> str:
    return str(json.loads(cloud.cli("console", "url", "show", option, name, "-f", "json"))["url"])


def web_socket(page: str) -> str:
    """Return the WebSocket URL to which the noVNC page connects."""
    parts = urlsplit(page)
    return f"ws://{parts.netloc}/{parse_qs(parts.query)['path'][0]}"


def drain(client: ClientConnection) -> None:
    while True:
        client.recv(SECONDS)


def test_guest_screen_and_keyboard_work(cloud: Cloud, connection: Connection, boot: Callable[..., Any]) -> None:
    server = boot("seen")
    serial_url, page = url(cloud, "--serial", "seen"), url(cloud, "--novnc", "seen")
    if static_files.directory() is not None:
        with urllib.request.urlopen(page) as answer:
            assert b"rfb.js" in answer.read()
    with pytest.raises(InvalidStatus, match="403"):
        connect(re.sub("token=.*", "token=wrong", serial_url), proxy=None)

    with (
        connect(serial_url, proxy=None) as serial,
        connect(web_socket(page), proxy=None, max_size=None) as screen,
    ):
        typed, seen = Stream(serial), Stream(screen)
        serial.send(b"\r")
        typed.until(b"login:")
        serial.send(b"nobody-of-this-name\r")
        typed.until(b"nobody-of-this-name")

        assert seen.exactly(12) == b"RFB 003.008\n"
        screen.send(b"RFB 003.008\n")
        assert 1 in seen.exactly(seen.exactly(1)[0])
        screen.send(b"\x01")
        assert seen.exactly(4) == b"\0\0\0\0"
        screen.send(b"\x01")
        assert int.from_bytes(seen.exactly(2), "big") >= 640
        assert "login:" in connection.compute.get_server_console_output(server.id)["output"]

        connection.delete_server(server.id, wait=True)
        for client in (serial, screen):
            with pytest.raises(ConnectionClosed):
                drain(client)

    def is_refused() -> bool:
        try:
            connect(serial_url, proxy=None).close()
        except InvalidStatus:
            return True
        return False

    wait_until(is_refused)
    assert page not in cloud.log.read_text()
    assert urlsplit(serial_url).query.removeprefix("token=") not in cloud.log.read_text()
