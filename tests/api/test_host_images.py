"""Image API for remote hosts: authorization of reads and snapshot uploads, and resumed downloads."""

import base64
import hashlib
import hmac
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app import bootstrap
from app.core import errors, installation
from app.core.settings import Settings
from app.db.database import Database
from app.security.secret_cipher import SecretCipher
from compute_agent.images.remote import RemoteImages
from compute_api.access import host_credentials, host_proof
from compute_api.models import HostCredential
from hypervisor.api.errors import ImageUnusable
from hypervisor.api.spec import ImageRef, SnapshotFile
from tests.api.conftest import Api, Host

DATA = bytes(range(256)) * 4096


@pytest.fixture
def proof(database: Database, host: Host, settings: Settings) -> Callable[[str], dict[str, str]]:
    """`proof(name)` registers a host credential and returns its HTTP headers."""

    def headers(name: str) -> dict[str, str]:
        with database.transaction() as session:
            secret = host_credentials.create(session, SecretCipher(settings), datetime.now(UTC), name)
        return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}

    return headers


def test_a_host_reads_the_images_of_its_servers_and_no_others(
    client: Api,
    as_member: Api,
    image: str,
    make_server: Callable[..., str],
    host: Host,
    proof: Callable[[str], dict[str, str]],
) -> None:
    own, other = proof(host.hypervisor.name), proof("another-host")
    path = f"/image/hosts/disks/{image}"
    assert client.get(path).status_code == 401
    assert client.get(path, headers=own).status_code == 403  # none of its servers uses the image yet
    make_server()
    whole = client.get(path, headers=own)
    assert whole.status_code == 200
    assert len(whole.data) == int(whole.headers["Content-Length"]) > 0
    rest = client.get(path, headers={**own, "Range": "bytes=5-"})
    assert (rest.status_code, rest.data) == (206, whole.data[5:])
    assert rest.headers["Content-Range"] == f"bytes 5-{len(whole.data) - 1}/{len(whole.data)}"
    beyond = client.get(path, headers={**own, "Range": f"bytes={len(whole.data) + 1}-"})
    assert beyond.status_code == 416
    assert client.get(path, headers=other).status_code == 403
    wrong = {"Authorization": "Basic " + base64.b64encode(f"{host.hypervisor.name}:guess".encode()).decode()}
    assert client.get(path, headers=wrong).status_code == 401


def test_host_uploads_only_the_snapshot_of_its_own_operation(
    client: Api,
    as_member: Api,
    image: str,
    make_server: Callable[..., str],
    host: Host,
    proof: Callable[[str], dict[str, str]],
) -> None:
    own, other = proof(host.hypervisor.name), proof("another-host")
    server = make_server()
    made = as_member.post(f"/compute/v2.1/servers/{server}/action", json={"createImage": {"name": "snapshot"}})
    new = made.headers["Location"].rpartition("/")[2]
    path = f"/image/hosts/snapshots/{new}?disk_format=raw"
    digest = base64.b64encode(hashlib.sha512(DATA).digest()).decode()
    own, other = ({**each, "Content-Digest": f"sha-512=:{digest}:"} for each in (own, other))
    assert client.put(path, headers=own, data=DATA).status_code == 403  # no snapshot operation is claimed yet
    work = host.conductor.claim(host.conductor.waiting()[0])
    assert work is not None
    assert client.put(path, headers=other, data=DATA).status_code == 403
    assert client.put(f"/image/hosts/snapshots/{image}", headers=own, data=DATA).status_code == 403
    assert client.put(path, headers={**own, "Content-Digest": ""}, data=DATA).status_code == 400
    assert client.put(path.replace("=raw", "=aki"), headers=own, data=DATA).status_code == 400
    assert client.put(path, headers=own, data=DATA[:-1] + b"!").status_code == 503  # the host may retry
    assert client.put(path, headers=own, data=DATA).status_code == 204
    assert client.put(path, headers=own, data=DATA).status_code == 204  # retry after a lost response
    shown = as_member.get(f"/image/v2/images/{new}").json
    assert (shown["status"], shown["size"], shown["disk_format"]) == ("active", len(DATA), "raw")
    assert as_member.get(f"/image/v2/images/{new}/file").data == DATA


class Shaky(BaseHTTPRequestHandler):
    """An image API that returns errors first and then closes each connection after `at_once` bytes."""

    protocol_version = "HTTP/1.1"
    data = DATA
    at_once = 300_000
    says_length = True
    refusal: tuple[int, bytes] = (204, b"")
    status: list[int] = []
    ranges: list[str] = []

    def do_GET(self) -> None:
        cls = type(self)
        cls.ranges.append(self.headers.get("Range", ""))
        if cls.status:
            self.send_response(cls.status.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        if cls.says_length:
            self.send_header("Content-Length", str(len(cls.data) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(cls.data) - 1}/{len(cls.data)}")
        self.end_headers()
        self.wfile.write(cls.data[start : start + cls.at_once])
        self.close_connection = True

    def do_PUT(self) -> None:
        self.ranges.append("PUT")
        self.rfile.read(int(self.headers["Content-Length"]))
        status, words = self.refusal
        self.send_response(status)
        self.send_header("Content-Length", str(len(words)))
        self.end_headers()
        self.wfile.write(words)

    def log_message(self, *_arguments: object) -> None:
        return


@pytest.fixture
def shaky() -> Iterator[tuple[type[Shaky], str]]:
    handler = type("Handler", (Shaky,), {"status": [], "ranges": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def reference(data: bytes = DATA) -> ImageRef:
    sha512 = hashlib.sha512(data).hexdigest()
    return ImageRef(
        id="some-image", disk_format="raw", size_bytes=len(data), virtual_size_bytes=len(data), sha512=sha512
    )


def test_download_resumes_after_interruption(shaky: tuple[type[Shaky], str], tmp_path: Path) -> None:
    handler, url = shaky
    handler.status = [503, 500]
    images = RemoteImages(url, "host", "secret", tmp_path / "fetched", backoff_seconds=0)
    assert images.local_path(reference()).read_bytes() == DATA
    assert handler.ranges == ["", "", "", "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    asked = len(handler.ranges)
    assert images.local_path(reference()).read_bytes() == DATA
    assert len(handler.ranges) == asked  # served from the cache


def test_download_without_content_length_resumes_too(shaky: tuple[type[Shaky], str], tmp_path: Path) -> None:
    handler, url = shaky
    handler.says_length = False
    images = RemoteImages(url, "host", "secret", tmp_path / "fetched", backoff_seconds=0)
    assert images.local_path(reference()).read_bytes() == DATA
    assert handler.ranges == ["", "bytes=300000-", "bytes=600000-", "bytes=900000-"]


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((413, b'{"message": "it is over the quota", "code": 413}'), "413: it is over the quota"),
        ((409, b'{"message": "it is active"}'), "409: it is active"),
        ((400, b"<html>a proxy</html>"), r"answered 400\."),
    ],
)
def test_refused_snapshot_upload_is_reported_and_not_retried(
    shaky: tuple[type[Shaky], str], tmp_path: Path, refusal: tuple[int, bytes], said: str
) -> None:
    handler, url = shaky
    handler.refusal = refusal
    snapshot = SnapshotFile(path=tmp_path / "snapshot", disk_format="raw")
    snapshot.path.write_bytes(DATA)
    images = RemoteImages(url, "host", "secret", tmp_path / "fetched", backoff_seconds=0)
    with pytest.raises(errors.Unavailable, match=said):
        images.upload("some-image", snapshot)
    assert handler.ranges == ["PUT"]


def test_concurrent_requests_for_an_image_fetch_it_once(shaky: tuple[type[Shaky], str], tmp_path: Path) -> None:
    handler, url = shaky
    handler.at_once = len(DATA)
    images = RemoteImages(url, "host", "secret", tmp_path / "fetched", backoff_seconds=0)
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(images.local_path(reference()).read_bytes())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [DATA] * 8
    assert handler.ranges == [""]


def test_wrong_bytes_are_not_kept(shaky: tuple[type[Shaky], str], tmp_path: Path) -> None:
    handler, url = shaky
    handler.at_once, handler.data = len(DATA), DATA[::-1]
    images = RemoteImages(url, "host", "secret", tmp_path / "fetched", backoff_seconds=0)
    with pytest.raises(ImageUnusable, match="does not match its hash"):
        images.local_path(reference())
    handler.data = DATA
    assert images.local_path(reference()).read_bytes() == DATA


@pytest.mark.parametrize(("status", "words"), [(404, "no longer in the store"), (403, "refuses"), (401, "refuses")])
def test_permanent_errors_are_not_retried(
    shaky: tuple[type[Shaky], str], tmp_path: Path, status: int, words: str
) -> None:
    handler, url = shaky
    handler.status = [status]
    images = RemoteImages(url, "host", "secret", tmp_path / "fetched", backoff_seconds=0)
    with pytest.raises(ImageUnusable, match=words):
        images.local_path(reference())
    assert len(handler.ranges) == 1


def test_unreachable_image_api_is_reported(tmp_path: Path) -> None:
    images = RemoteImages("http://127.0.0.1:1", "host", "secret", tmp_path / "fetched", backoff_seconds=0)
    with pytest.raises(ImageUnusable, match="cannot be fetched"):
        images.local_path(reference())
    snapshot = SnapshotFile(path=tmp_path / "snapshot", disk_format="raw")
    snapshot.path.write_bytes(DATA)
    with pytest.raises(Exception, match="could not be uploaded"):
        images.upload("some-image", snapshot)


def test_a_row_of_the_database_does_not_prove_a_host(database: Database, settings: Settings) -> None:
    now, seal = datetime.now(UTC), SecretCipher(settings)
    with database.transaction() as session:
        secret = host_credentials.create(session, seal, now, "elsewhere")
    with database.reading() as session:
        row = session.get_one(HostCredential, "elsewhere").sealed_hash
        assert host_credentials.is_valid_proof(session, seal, "elsewhere", "w", host_proof.prove(secret, "w"))
        made = hmac.new(row.encode(), b"w", hashlib.sha256).hexdigest()
        assert not host_credentials.is_valid_proof(session, seal, "elsewhere", "w", made)
        assert hashlib.sha256(secret.encode()).hexdigest() not in row


def test_credentials_of_earlier_versions_go_on_working(database: Database, settings: Settings) -> None:
    plain, seal = hashlib.sha256(b"secret").hexdigest(), SecretCipher(settings)
    with database.transaction() as session:
        session.add(HostCredential(host="elsewhere", sealed_hash=plain, created_at=datetime.now(UTC)))
    for _ in range(2):
        bootstrap.prepare(settings, installation.load(settings))
        with database.reading() as session:
            assert plain not in session.get_one(HostCredential, "elsewhere").sealed_hash
            assert host_credentials.authenticate(session, seal, "elsewhere", "secret") == "elsewhere"
            assert host_credentials.is_valid_proof(session, seal, "elsewhere", "w", host_proof.prove("secret", "w"))


def test_a_credential_sealed_with_other_keys_is_refused(database: Database, settings: Settings, tmp_path: Path) -> None:
    with database.transaction() as session:
        secret = host_credentials.create(session, SecretCipher(settings), datetime.now(UTC), "elsewhere")
    other = SecretCipher(replace(settings, state=tmp_path / "other"))
    with database.reading() as session, pytest.raises(errors.Unauthorized):
        host_credentials.authenticate(session, other, "elsewhere", secret)
