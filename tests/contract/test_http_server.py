"""The API's HTTP server over raw sockets: request bodies (unfinished, slow, broken, complete) and response framing."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from app import bootstrap
from app.core import installation
from app.core.settings import Settings
from tests.contract.conftest import free_port, wait_until

MIB = 1 << 20
LOGINS = 60


@dataclass
class Server:
    """One API process without an agent."""

    settings: Settings
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://{self.settings.listen}"

    def connect(self, *lines: str) -> socket.socket:
        """Open a connection and send the head of a request."""
        connection = socket.create_connection(self.settings.address)
        connection.settimeout(60)
        head = [lines[0], f"Host: {self.settings.listen}", *lines[1:], "", ""]
        connection.sendall("\r\n".join(head).encode())
        return connection

    def log_in(self, cloud: str = "sixstack-admin") -> "Actor":
        auth = yaml.safe_load((self.settings.state / "clouds.yaml").read_text())["clouds"][cloud]["auth"]
        user = {"name": auth["username"], "domain": {"id": "default"}, "password": auth["password"]}
        body = {"identity": {"methods": ["password"], "password": {"user": user}}}
        project = {"name": auth["project_name"], "domain": {"id": "default"}}
        return self._actor({**body, "scope": {"project": project}})

    def rescope(self, actor: "Actor", project_id: str) -> "Actor":
        body = {"identity": {"methods": ["token"], "token": {"id": actor.token}}}
        return self._actor({**body, "scope": {"project": {"id": project_id}}})

    def _actor(self, auth: dict[str, Any]) -> "Actor":
        answer = requests.post(f"{self.url}/identity/v3/auth/tokens", json={"auth": auth}, timeout=60)
        assert answer.status_code == 201, answer.text
        user = answer.json()["token"]["user"]["id"]
        return Actor(self, answer.headers["X-Subject-Token"], user)


@dataclass
class Actor:
    """A user with a token."""

    server: Server
    token: str
    user_id: str

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        headers = {"X-Auth-Token": self.token, **more.pop("headers", {})}
        return requests.request(method, self.server.url + path, headers=headers, timeout=60, **more)

    def new_image(self) -> str:
        body = {"name": "raw", "disk_format": "raw", "container_format": "bare"}
        return str(self.ask("POST", "/image/v2/images", json=body).json()["id"])

    def image_with(self, content: bytes) -> str:
        image_id = self.new_image()
        answer = self.ask("PUT", file_of(image_id), data=content, headers=OCTETS)
        assert answer.status_code == 204, answer.text
        return image_id

    def begin_upload(self, image_id: str, *lines: str) -> socket.socket:
        return self.server.connect(
            f"PUT {file_of(image_id)} HTTP/1.1",
            f"X-Auth-Token: {self.token}",
            "Content-Type: application/octet-stream",
            *lines,
        )

    def status_of(self, image_id: str) -> str:
        return str(self.ask("GET", f"/image/v2/images/{image_id}").json()["status"])


OCTETS = {"Content-Type": "application/octet-stream"}
CHUNKED = "Transfer-Encoding: chunked"


def file_of(image_id: str) -> str:
    return f"/image/v2/images/{image_id}/file"


def head_of(connection: socket.socket) -> tuple[int, int]:
    """Read the next response's head; return status and Content-Length, status 0 when the connection ends first."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (part := connection.recv(1)):
        head += part
    lines = head.lower().split(b"\r\n")
    lengths = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")]
    return int(head.split()[1]) if head else 0, lengths[0] if lengths else 0


def status_line(connection: socket.socket) -> int:
    return head_of(connection)[0]


def response(connection: socket.socket) -> tuple[int, bytes]:
    """Read until the server closes; return status and body."""
    parts = []
    while part := connection.recv(MIB):
        parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def serve(settings: Settings) -> Iterator[Server]:
    bootstrap.prepare(settings, installation.prepare(settings))
    process = subprocess.Popen([sys.executable, "-m", "app.server"], env={**os.environ, **settings.environ()})
    try:
        made = Server(settings, process)

        def answers() -> bool:
            assert process.poll() is None
            with socket.socket() as probe:
                return probe.connect_ex(settings.address) == 0

        wait_until(answers, seconds=60, pause=0.05)
        yield made
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(Settings(state=tmp_path_factory.mktemp("api") / "state", listen=f"127.0.0.1:{free_port()}"))


@pytest.fixture(scope="module")
def impatient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with timeouts of one second for small bodies and for transfers slower than 1 MiB/s."""
    settings = Settings(state=tmp_path_factory.mktemp("api") / "state", listen=f"127.0.0.1:{free_port()}")
    yield from serve(replace(settings, request_body_seconds=1.0, transfer_min_kib=1024, transfer_grace_seconds=1.0))


@pytest.fixture(scope="module")
def admin(server: Server) -> Actor:
    return server.log_in()


def test_unfinished_logins_do_not_stop_the_api(server: Server) -> None:
    line = "POST /identity/v3/auth/tokens HTTP/1.1"
    with ExitStack() as stack:
        for number in range(LOGINS):
            framing = "Content-Length: 100000" if number % 2 else CHUNKED
            connection = stack.enter_context(server.connect(line, "Content-Type: application/json", framing))
            connection.sendall(b'{"a' if number % 2 else b'3\r\n{"a\r\n')
        assert requests.get(f"{server.url}/identity/v3", timeout=5).status_code == 200
        assert server.log_in().token


def test_a_body_that_does_not_arrive_is_a_408(impatient_server: Server) -> None:
    line = "POST /identity/v3/auth/tokens HTTP/1.1"
    with impatient_server.connect(line, "Content-Length: 100") as connection:
        connection.sendall(b'{"a')
        status, body = response(connection)
    assert status == 408
    assert json.loads(body)["error"]["code"] == 408


@pytest.mark.parametrize("framing", [CHUNKED, "Content-Length: 100000"])
def test_a_dripping_upload_is_ended(impatient_server: Server, framing: str) -> None:
    actor = impatient_server.log_in()
    image_id = actor.new_image()
    with actor.begin_upload(image_id, framing) as connection:
        connection.sendall(b"3\r\nabc\r\n" if framing == CHUNKED else b"abc")
        assert response(connection)[0] == 408
    assert actor.status_of(image_id) == "queued"


def test_a_download_that_is_not_read_is_ended(impatient_server: Server, tmp_path: Path) -> None:
    actor = impatient_server.log_in()
    size = 64 * MIB
    image_id = actor.new_image()
    with actor.begin_upload(image_id, f"Content-Length: {size}") as connection, (tmp_path / "disk").open("wb") as disk:
        disk.truncate(size)
        with disk, (tmp_path / "disk").open("rb") as content:
            connection.sendfile(content)
        assert status_line(connection) == 204
    line = f"GET {file_of(image_id)} HTTP/1.1"
    with impatient_server.connect(line, f"X-Auth-Token: {actor.token}") as connection:
        wait_until(lambda: not _is_open(connection), seconds=30, pause=0.05)


def _is_open(connection: socket.socket) -> bool:
    """Return whether the connection is in TCP state ESTABLISHED, without reading from it."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and _state(connection) == 1


def _state(connection: socket.socket) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0]


def test_complete_chunked_uploads_at_once_all_succeed(server: Server, admin: Actor) -> None:
    projects = []
    for number in range(4):
        made = admin.ask("POST", "/identity/v3/projects", json={"project": {"name": f"many-{number}"}}).json()
        projects.append(made["project"]["id"])
        roles = admin.ask("GET", "/identity/v3/roles?name=member").json()["roles"]
        path = f"/identity/v3/projects/{projects[-1]}/users/{admin.user_id}/roles/{roles[0]['id']}"
        assert admin.ask("PUT", path).status_code == 204
    actors = [server.rescope(admin, project) for project in projects]
    content = os.urandom(300_000)

    def upload(number: int) -> int:
        actor = actors[number % 4]
        image_id = actor.new_image()
        with actor.begin_upload(image_id, CHUNKED) as connection:
            connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))
            status = status_line(connection)
        assert status != 204 or actor.ask("GET", file_of(image_id)).content == content
        return status

    with ThreadPoolExecutor(32) as threads:
        assert list(threads.map(upload, range(32))) == [204] * 32


@pytest.mark.parametrize("way", ["closed", "half closed", "reset"])
@pytest.mark.parametrize("framing", ["chunked", "within a chunk", "sized"])
def test_broken_uploads_at_once_are_all_refused(server: Server, admin: Actor, framing: str, way: str) -> None:
    content = os.urandom(100_000)
    images = [admin.new_image() for _ in range(6)]
    for image_id in images:
        with admin.begin_upload(image_id, "Content-Length: 100001" if framing == "sized" else CHUNKED) as connection:
            size = b"" if framing == "sized" else b"%x\r\n" % (len(content) + (framing == "within a chunk"))
            connection.sendall(size + content + (b"\r\n" if framing == "chunked" else b""))
            wait_until(lambda: admin.status_of(image_id) == "saving", seconds=30, pause=0.02)  # noqa: B023
            if way == "half closed":
                connection.shutdown(socket.SHUT_WR)
                assert status_line(connection) == 400
            elif way == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    for image_id in images:
        wait_until(lambda: admin.status_of(image_id) == "queued", seconds=30, pause=0.02)  # noqa: B023


def test_one_project_takes_a_quarter_of_the_transfers(server: Server, admin: Actor) -> None:
    share = server.settings.transfer_threads // 4
    other = server.log_in("sixstack")
    with ExitStack() as stack:
        for image_id in [admin.new_image() for _ in range(share)]:
            stack.enter_context(admin.begin_upload(image_id, "Content-Length: 1000"))
            wait_until(lambda: admin.status_of(image_id) == "saving", seconds=30, pause=0.02)  # noqa: B023
        refused = admin.ask("PUT", file_of(admin.new_image()), data=b"content", headers=OCTETS)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        assert other.image_with(b"content")


def test_a_refused_upload_is_read_to_64_mib(admin: Actor) -> None:
    damaged = bytes.fromhex("1f8b08") + b"\xff" * (MIB - 3)
    with admin.begin_upload(admin.new_image(), CHUNKED) as connection:
        sent = 0
        with suppress(OSError):
            while sent < 1024 * MIB:
                connection.sendall(b"100000\r\n" + damaged + b"\r\n")
                sent += MIB
    assert 32 * MIB < sent < 200 * MIB


def test_refused_upload_gets_its_response_before_close(admin: Actor) -> None:
    damaged = bytes.fromhex("1f8b08") + b"\xff" * (8 * MIB)
    with admin.begin_upload(admin.new_image(), f"Content-Length: {len(damaged)}", "Connection: close") as connection:
        connection.sendall(damaged)
        assert response(connection)[0] == 400


def test_a_body_that_is_too_large_is_a_413(server: Server, admin: Actor) -> None:
    large = b'{"a": "' + b"x" * (MIB + 10) + b'"}'
    for body in (large, iter([large])):
        answer = admin.ask("POST", "/compute/v2.1/servers", data=body)
        assert answer.status_code == 413
        assert answer.json()["overLimit"]["code"] == 413


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 9 * MIB + 7])
def test_images_are_downloaded_unchanged(admin: Actor, size: int) -> None:
    content = os.urandom(size) or b"x"
    image_id = admin.image_with(content)
    whole = admin.ask("GET", file_of(image_id))
    assert whole.content == content
    assert whole.headers["Content-Length"] == str(len(content))
    head = admin.ask("HEAD", file_of(image_id))
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(content)))


@pytest.mark.parametrize(
    ("asked", "start", "stop"), [("5-9", 5, 10), ("3-5000000", 3, 5_000_001), ("-2000000", -2_000_000, None)]
)
def test_ranges_of_images(admin: Actor, asked: str, start: int, stop: int | None) -> None:
    content = os.urandom(6 * MIB)
    answer = admin.ask("GET", file_of(admin.image_with(content)), headers={"Range": f"bytes={asked}"})
    assert answer.status_code == 206
    assert answer.content == content[start:stop]


def test_downloads_give_their_places_back(server: Server, admin: Actor) -> None:
    image_id = admin.image_with(os.urandom(20 * MIB))
    for _ in range(server.settings.transfer_threads):
        with server.connect(f"GET {file_of(image_id)} HTTP/1.1", f"X-Auth-Token: {admin.token}") as connection:
            assert status_line(connection) == 200

    def answered() -> bool:
        with admin.ask("GET", file_of(image_id), stream=True) as answer:
            return answer.status_code == 200 and len(answer.content) == 20 * MIB

    wait_until(answered, seconds=30)


def test_expect_100_continue(server: Server, admin: Actor) -> None:
    image_id = admin.new_image()
    with admin.begin_upload(image_id, "Content-Length: 3", "Expect: 100-continue") as connection:
        assert status_line(connection) == 100
        connection.sendall(b"abc")
        assert status_line(connection) == 204
    with server.connect(
        f"PUT {file_of(image_id)} HTTP/1.1", "Content-Length: 3000000", "Expect: 100-continue"
    ) as connection:
        assert status_line(connection) == 401


def test_connections_stay_open_between_requests(server: Server) -> None:
    with server.connect("GET /identity/v3 HTTP/1.1") as connection:
        for method in ("HEAD", "GET", "HEAD", "GET"):
            status, length = head_of(connection)
            assert status == 200
            while length and method != "GET":  # the previous request was a GET: read its body
                length -= len(connection.recv(length))
            connection.sendall(f"{method} /identity/v3 HTTP/1.1\r\nHost: {server.settings.listen}\r\n\r\n".encode())
        assert status_line(connection) == 200


@pytest.mark.parametrize(
    "path", ["//identity//v3", "/identity/v3//", "/image//v2//images", "//compute///v2.1//servers"]
)
def test_repeated_slashes_are_merged(admin: Actor, path: str) -> None:
    answer = admin.ask("GET", path, allow_redirects=False)
    assert answer.status_code == 200, answer.text


def test_paths_and_queries_are_unquoted(admin: Actor) -> None:
    name = "größe & €"
    body = {"name": name, "disk_format": "raw", "container_format": "bare"}
    image_id = admin.ask("POST", "/image/v2/images", json=body).json()["id"]
    assert admin.ask("PUT", f"/image/v2/images/{image_id}/tags/{requests.utils.quote(name)}").status_code == 204
    found = admin.ask("GET", "/image/v2/images", params={"name": name}).json()["images"]
    assert [(image["id"], image["tags"]) for image in found] == [(image_id, [name])]
    assert admin.ask("GET", "/image/v2/images/%ff").status_code == 404


def test_unusual_headers_are_accepted(server: Server, admin: Actor) -> None:
    line = "GET /image/v2/images HTTP/1.1"
    token = f"X-Auth-Token: {admin.token}"
    for more in ("X-Odd: größe", "Cookie: a=1\r\nCookie: b=2", "X_Odd: 1\r\nX-Odd: 2", "Accept: a/b\r\nAccept: c/d"):
        with server.connect(line, token, more, "Connection: close") as connection:
            assert response(connection)[0] == 200, more
    with server.connect(line, token, token, "Connection: close") as connection:
        assert response(connection)[0] == 401


def test_headers_with_underscores_are_not_read_as_hyphens(server: Server, admin: Actor) -> None:
    """Reverse proxies replace X-Forwarded-For but pass X_Forwarded_For on."""
    answer = requests.get(f"{server.url}/image/v2/images", headers={"X_Auth_Token": admin.token}, timeout=60)
    assert answer.status_code == 401
