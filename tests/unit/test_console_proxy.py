"""The console proxy: tokens, origins, limits, pages, and bytes that pass both ways until one side ends."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app import errors
from app.consoles.__main__ import bound
from app.consoles.proxy import Proxy
from app.settings import Settings
from compute_agent.consoles import open_console, receive
from hypervisor.errors import HypervisorError
from hypervisor.fake import FakeHypervisor

SECONDS = 60.0


class Served:
    """A proxy for one console, and its guest's end."""

    def __init__(self, root: Path | None = None, limit: int = 4) -> None:
        self.here, self.guest = socket.socketpair()
        self.guest.setblocking(False)
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.proxy = Proxy(self._check, self._open, root, limit=limit)

    def _check(self, token: str) -> None:
        if token not in ("good", "stopped"):
            raise errors.NotFound("Token not found")

    def _open(self, token: str) -> socket.socket:
        if token == "stopped":
            raise errors.Conflict("Machine does not run.")
        return self.here

    def connect(self, token: str, **options: object) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/?token={token}", proxy=None, **options)  # type: ignore[arg-type]

    def run(self, visit: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            server = await self.proxy.listen(self.sock)
            try:
                await asyncio.wait_for(visit(), SECONDS)
            finally:
                server.close()
                await server.wait_closed()

        with self.guest, self.here, self.sock:
            asyncio.run(whole())


async def received(guest: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(guest, 100)


def test_bytes_pass_both_ways_and_both_sides_end_together() -> None:
    served = Served()

    async def visit() -> None:
        async with served.connect("good", subprotocols=["binary"]) as client:
            assert client.subprotocol == "binary"
            await client.send(b"\0key")
            assert await received(served.guest) == b"\0key"
            served.guest.sendall(b"picture")
            assert await client.recv() == b"picture"
            served.guest.shutdown(socket.SHUT_RDWR)
            with pytest.raises(ConnectionClosed):
                await client.recv()

    served.run(visit)


def test_the_console_is_let_go_when_the_browser_leaves() -> None:
    served = Served()

    async def visit() -> None:
        async with served.connect("good") as client:
            assert client.subprotocol is None
            await client.send("typed")
            assert await received(served.guest) == b"typed"
        assert await received(served.guest) == b""

    served.run(visit)


@pytest.mark.parametrize("token", ["bad", ""])
def test_a_wrong_token_opens_nothing(token: str, caplog: pytest.LogCaptureFixture) -> None:
    served = Served()
    caplog.set_level("DEBUG")

    async def visit() -> None:
        with pytest.raises(InvalidStatus) as refused:
            await served.connect(token)
        assert refused.value.response.status_code == 403

    served.run(visit)
    assert not [record for record in caplog.records if record.name.startswith("sixstack")]


def test_a_page_from_elsewhere_opens_nothing() -> None:
    served = Served()

    async def visit() -> None:
        with pytest.raises(InvalidStatus) as refused:
            await served.connect("good", origin="http://elsewhere.example")
        assert refused.value.response.status_code == 403
        async with served.connect("good", origin=f"http://127.0.0.1:{served.port}"):
            pass

    served.run(visit)


def test_there_is_a_limit() -> None:
    served = Served(limit=1)

    async def visit() -> None:
        async with served.connect("good") as client:
            await client.send(b"x")
            await received(served.guest)
            with pytest.raises(InvalidStatus) as refused:
                await served.connect("good")
            assert refused.value.response.status_code == 503

    served.run(visit)


def test_a_console_that_cannot_be_opened_says_why() -> None:
    served = Served()

    async def visit() -> None:
        client: ClientConnection
        async with served.connect("stopped") as client:
            with pytest.raises(ConnectionClosed) as ended:
                await client.recv()
            assert ended.value.rcvd is not None
            assert ended.value.rcvd.reason == "Machine does not run."

    served.run(visit)


def test_pages_are_served_and_nothing_beside_them(tmp_path: Path) -> None:
    root = tmp_path / "novnc"
    (root / "core").mkdir(parents=True)
    (root / "vnc_lite.html").write_text("<html>")
    (root / "core/rfb.js").write_text("export")
    (tmp_path / "secret").write_text("secret")
    served = Served(root)

    async def get(path: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def visit() -> None:
        page = await get("/vnc_lite.html?path=%3Ftoken%3Dgood")
        assert page.startswith(b"HTTP/1.1 200")
        assert b"text/html" in page
        assert page.endswith(b"<html>")
        assert b"text/javascript" in await get("/core/rfb.js")
        for path in ("/", "/core", "/../secret", "/%2e%2e/secret", "/core/..%2f..%2fsecret", "//secret", "/no"):
            assert (await get(path)).startswith(b"HTTP/1.1 404"), path

    served.run(visit)


def test_the_agent_hands_over_what_it_opened() -> None:
    hypervisor = FakeHypervisor()
    with pytest.raises(HypervisorError):
        open_console(hypervisor, "nowhere", "vnc")
    ours, theirs = socket.socketpair()
    opener = SimpleNamespace(open_console=lambda _machine, _kind: ours)
    with theirs, receive(open_console(opener, "id", "serial")) as console:  # type: ignore[arg-type]
        console.sendall(b"here")
        assert theirs.recv(10) == b"here"


def test_a_taken_port_matters_only_to_who_chose_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as api, socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(OSError, match="in use"):
            bound(Settings(state=tmp_path, listen=f"127.0.0.1:{api.getsockname()[1]}", console_listen=taken))
        with bound(Settings(state=tmp_path, listen=f"127.0.0.1:{other.getsockname()[1] - 1}")) as somewhere:
            assert somewhere.getsockname()[1] != other.getsockname()[1]
