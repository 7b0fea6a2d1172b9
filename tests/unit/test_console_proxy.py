"""Console proxy: tokens, origins, limits, static pages, and relaying bytes."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.headers import build_authorization_basic

from app.console_transport import endpoint
from app.console_transport.relay import ConsoleStream, SocketStream
from app.console_transport.socket_handoff import open_console, receive_console
from app.consoles.__main__ import bind_socket
from app.consoles.proxy import Proxy
from app.consoles.tunnels import HostConnections
from app.core import errors
from app.core.settings import Settings
from compute_agent.console_tunnel import ConsoleTunnels
from compute_agent.credential import HostCredential
from compute_api.access.host_proof import prove
from hypervisor.api.errors import HypervisorError
from hypervisor.fake import FakeHypervisor

SECONDS = 60.0


class Served:
    """A console proxy and the guest's end of its console. With `host`, a remote host connects the console."""

    def __init__(self, root: Path | None = None, limit: int = 4, host: HostCredential | None = None) -> None:
        self.here, self.guest = socket.socketpair()
        self.guest.setblocking(False)
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.hosts = HostConnections(lambda name, session, given: name == "h1" and given == prove("secret", session))
        self.proxy = Proxy(self._check, self._open, root, self.hosts, url="https://consoles.example/x", limit=limit)
        self.host = host
        self.dialer: ConsoleTunnels | None = None

    def _check(self, token: str) -> None:
        if token not in ("good", "stopped"):
            raise errors.NotFound("Token not found")

    async def _open(self, token: str) -> ConsoleStream:
        if token == "stopped":
            raise errors.Conflict("Machine does not run.")
        return (
            await SocketStream.of(self.here)
            if self.host is None
            else await self.hosts.wait_for_console("h1", self._ask)
        )

    async def _ask(self, session: str) -> None:
        """Request a tunnel from the host, in place of the broker."""
        assert self.dialer is not None
        opener = SimpleNamespace(open_console=lambda _machine, _kind: self.here.dup())
        place = {"kind": "vnc", "url": None, "port": self.port, "session": session}
        try:
            await asyncio.to_thread(self.dialer.bring_console, opener, "id", **place)  # type: ignore[arg-type]
        except HypervisorError as error:
            raise errors.Conflict(str(error)) from error

    def connect(self, token: str, **options: object) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/?token={token}", proxy=None, **options)  # type: ignore[arg-type]

    def run(self, visit: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            server = await self.proxy.listen(self.sock)
            if self.host is not None:
                self.dialer = ConsoleTunnels(self.host)
            try:
                await asyncio.wait_for(visit(), SECONDS)
            finally:
                if self.dialer is not None:
                    await asyncio.to_thread(self.dialer.close)
                server.close()
                await server.wait_closed()

        with self.guest, self.here, self.sock:
            asyncio.run(whole())


async def received(guest: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(guest, 100)


def test_bytes_are_relayed_and_both_streams_close() -> None:
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


def test_console_is_closed_when_the_browser_disconnects() -> None:
    served = Served()

    async def visit() -> None:
        async with served.connect("good") as client:
            assert client.subprotocol is None
            await client.send("typed")
            assert await received(served.guest) == b"typed"
        assert await received(served.guest) == b""

    served.run(visit)


@pytest.mark.parametrize("token", ["bad", ""])
def test_invalid_tokens_are_rejected(token: str, caplog: pytest.LogCaptureFixture) -> None:
    served = Served()
    caplog.set_level("DEBUG")

    async def visit() -> None:
        with pytest.raises(InvalidStatus) as refused:
            await served.connect(token)
        assert refused.value.response.status_code == 403

    served.run(visit)
    assert not [record for record in caplog.records if record.name.startswith("sixstack")]


def test_other_origins_are_rejected() -> None:
    served = Served()

    async def visit() -> None:
        with pytest.raises(InvalidStatus) as refused:
            await served.connect("good", origin="http://elsewhere.example")
        assert refused.value.response.status_code == 403
        assert refused.value.response.body == b"This page may not open consoles here.\n"
        for origin in (f"http://127.0.0.1:{served.port}", "https://consoles.example"):
            with pytest.raises(InvalidStatus) as refused:
                await served.connect("bad", origin=origin)
            assert (refused.value.response.status_code, refused.value.response.body) == (403, b"")

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


def test_failed_console_closes_with_the_reason() -> None:
    served = Served()

    async def visit() -> None:
        client: ClientConnection
        async with served.connect("stopped") as client:
            with pytest.raises(ConnectionClosed) as ended:
                await client.recv()
            assert ended.value.rcvd is not None
            assert ended.value.rcvd.reason == "Machine does not run."

    served.run(visit)


def test_only_pages_of_novnc_are_served(tmp_path: Path) -> None:
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
        expired = await get("/vnc_lite.html?path=%3Ftoken%3Dbad")
        assert expired.startswith(b"HTTP/1.1 403")
        assert expired.endswith(b"\r\n\r\nThe token is invalid or has expired.\n")
        assert b"text/javascript" in await get("/core/rfb.js")
        for path in ("/", "/core", "/../secret", "/%2e%2e/secret", "/core/..%2f..%2fsecret", "//secret", "/no"):
            assert (await get(path)).startswith(b"HTTP/1.1 404"), path

    served.run(visit)


def test_agent_hands_over_the_console_socket() -> None:
    hypervisor = FakeHypervisor()
    with pytest.raises(HypervisorError):
        open_console(hypervisor, "nowhere", "vnc")
    ours, theirs = socket.socketpair()
    opener = SimpleNamespace(open_console=lambda _machine, _kind: ours)
    with theirs, receive_console(open_console(opener, "id", "serial")) as console:  # type: ignore[arg-type]
        console.sendall(b"here")
        assert theirs.recv(10) == b"here"


def make_credential(name: str = "h1", secret: str = "secret") -> HostCredential:
    """Return a credential for the API address of these tests."""
    return HostCredential(name, secret, "amqp://", "http://127.0.0.1:1", SimpleNamespace())  # type: ignore[arg-type]


def test_remote_host_connects_its_console() -> None:
    served = Served(host=make_credential())

    async def visit() -> None:
        for word in (b"once", b"again"):
            async with served.connect("good") as client:
                await client.send(word)
                assert await received(served.guest) == word
                served.guest.sendall(b"picture of " + word)
                assert await client.recv() == b"picture of " + word
        async with served.connect("good") as client:
            await client.send("and")
            assert await received(served.guest) == b"and"
            served.here.close()
            served.guest.shutdown(socket.SHUT_RDWR)
            with pytest.raises(ConnectionClosed):
                await client.recv()

    served.run(visit)


def test_console_closes_with_its_agent_and_reconnects_to_the_next() -> None:
    served = Served(host=make_credential())

    async def visit() -> None:
        async with served.connect("good") as client:
            await client.send(b"x")
            await received(served.guest)
            assert served.dialer is not None
            await asyncio.to_thread(served.dialer.close)
            with pytest.raises(ConnectionClosed):
                await client.recv()
        served.dialer = ConsoleTunnels(make_credential())
        async with served.connect("good") as client:
            await client.send(b"y")
            assert await received(served.guest) == b"y"

    served.run(visit)


@pytest.mark.parametrize("host", [make_credential(name="h2"), make_credential(secret="other")])
def test_host_cannot_use_the_session_of_another_host(host: HostCredential) -> None:
    served = Served(host=host)

    async def visit() -> None:
        async with served.connect("good") as client:
            with pytest.raises(ConnectionClosed) as ended:
                await client.recv()
            assert ended.value.rcvd is not None
            assert ended.value.rcvd.reason == "The host of this server cannot reach the console proxy."

    served.run(visit)


def test_session_is_valid_once_while_the_proxy_waits() -> None:
    served = Served(host=make_credential())
    sessions: list[str] = []

    async def dial(session: str) -> ClientConnection:
        headers = {"Authorization": build_authorization_basic("h1", prove("secret", session))}
        url = f"ws://127.0.0.1:{served.port}/hosts/{session}"
        return await connect(url, additional_headers=headers, proxy=None)

    async def ask(session: str) -> None:
        sessions.append(session)
        await dial(session)

    async def fail(session: str) -> None:
        sessions.append(session)
        raise errors.Unavailable("There was no answer in time.")

    async def visit() -> None:
        brought = await served.hosts.wait_for_console("h1", ask)
        with pytest.raises(errors.Unavailable):
            await served.hosts.wait_for_console("h1", fail)
        for session in (*sessions, "never-asked", ""):
            with pytest.raises(InvalidStatus) as refused:
                await dial(session)
            assert refused.value.response.status_code == 403
        await brought.close()

    served.run(visit)


@pytest.mark.parametrize("host", [None, make_credential()])
def test_slow_browsers_cause_backpressure(host: HostCredential | None) -> None:
    served = Served(host=host)
    chunk, chunks, most = bytes(1 << 20), 96, 48
    sent = 0

    async def pour() -> None:
        nonlocal sent
        for _ in range(chunks):
            await asyncio.get_running_loop().sock_sendall(served.guest, chunk)
            sent += 1

    async def visit() -> None:
        async with served.connect("good", max_queue=2) as client:
            pouring = asyncio.create_task(pour())
            before = -1
            while sent > before:  # until flow control stops the sender
                before = sent
                await asyncio.sleep(0.3)
            assert sent < most
            left = chunks * len(chunk)
            while left:
                left -= len(await client.recv())
            await pouring

    served.run(visit)


@pytest.mark.parametrize(
    ("more", "url"),
    [
        ({"listen": "[fd00::1]:8774"}, "http://[fd00::1]:8775"),
        ({"listen": "api1.example:8774"}, "http://api1.example:8775"),
        ({"listen": "[::]:8774"}, None),
        ({"listen": "127.0.0.1:8774"}, None),
        ({"listen": "localhost:8774"}, None),
        ({"listen": "[fd00::1]:8774", "console_url": "https://all.example/"}, "https://all.example"),
        ({"console_url": "https://all.example", "console_host_url": "https://one.example"}, "https://one.example"),
    ],
)
def test_hosts_get_the_url_of_this_proxy(more: dict[str, str], url: str | None) -> None:
    assert endpoint.host_facing_url(Settings(**more), 8775) == url  # type: ignore[arg-type]


def test_taken_port_is_an_error_only_if_configured(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as api, socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(OSError, match="in use"):
            bind_socket(Settings(state=tmp_path, listen=f"127.0.0.1:{api.getsockname()[1]}", console_listen=taken))
        with bind_socket(Settings(state=tmp_path, listen=f"127.0.0.1:{other.getsockname()[1] - 1}")) as somewhere:
            assert somewhere.getsockname()[1] != other.getsockname()[1]
