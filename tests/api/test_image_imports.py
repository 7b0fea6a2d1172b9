# ruff: noqa: F811 (fixtures come by import)
"""Staged uploads and imports: each import runs once, on any worker, and failures have a message."""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from sqlalchemy import select

from image_api import images
from image_api.imports.imports import LEASE_SECONDS, RENEW_SECONDS
from image_api.imports.web_download import EgressPolicy
from image_api.imports.worker import ImportWorker, Job
from image_api.ingest.ingest import StoredContent
from image_api.models import ImageTask
from tests.api.image_fixtures import RAW, Actor, ImageCloud, admin, cloud, member, other  # noqa: F401

DEAD = f"{socket.gethostname()} 999999999 1"
"""A process of this host that is gone."""
QCOW2 = b"QFI\xfb" + bytes(4092)


class Web(BaseHTTPRequestHandler):
    """A web server with complete files, truncated files (/cut…), redirects (/to/…) and a slow file (/drip)."""

    files: ClassVar[dict[str, bytes]] = {"/disk": RAW, "/broken.qcow2": QCOW2}
    seen: ClassVar[list[str]] = []
    hurry: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/drip":
            self.send_response(200)
            self.send_header("Content-Length", str(len(RAW)))
            self.end_headers()
            with suppress(ConnectionError):
                while not self.hurry.wait(0.1):
                    self.wfile.write(b"x")
            return
        content = self.files.get(self.path.removeprefix("/cut"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path.startswith("/cut") else content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def worker(cloud: ImageCloud) -> ImportWorker:
    """An import worker that may connect to loopback, as operators can allow."""
    worker: ImportWorker = cloud.app.extensions["sixstack.images.worker"]
    worker.egress_policy = EgressPolicy(ports=frozenset(), allowed=(ip_network("127.0.0.0/8"),))
    return worker


def stage(actor: Actor, image_id: str, content: bytes = RAW) -> int:
    return actor.call(
        "PUT", f"/images/{image_id}/stage", data=content, content_type="application/octet-stream"
    ).status_code


def start(actor: Actor, image_id: str, name: str = "glance-direct", **method: str) -> int:
    body = {"method": {"name": name, **method}}
    return actor.call("POST", f"/images/{image_id}/import", json=body).status_code


def test_a_staged_image_is_imported(cloud: ImageCloud, member: Actor, worker: ImportWorker) -> None:
    image_id = member.create()["id"]
    assert stage(member, image_id) == 204
    image = member.show(image_id)
    assert image["status"] == "uploading"
    assert image["size"] is None
    assert start(member, image_id) == 202
    image = member.show(image_id)
    assert image["status"] == "importing"
    assert image["os_glance_import_task"]
    assert image["os_glance_importing_to_stores"]
    assert worker.run_once()
    image = member.show(image_id)
    assert image["status"] == "active"
    assert image["checksum"] == hashlib.md5(RAW).hexdigest()
    assert not [name for name in image if name.startswith("os_glance_")]
    assert member.get(f"/images/{image_id}/file").data == RAW
    assert [path.name for path in cloud.store.directory.iterdir()] == [image_id]
    assert not worker.run_once()


def test_tasks_report_the_outcome_of_imports(member: Actor, other: Actor, worker: ImportWorker) -> None:
    image_id = member.create()["id"]
    stage(member, image_id)
    start(member, image_id)
    [task] = member.get(f"/images/{image_id}/tasks").get_json()["tasks"]
    assert task["status"] == "pending"
    assert task["type"] == "api_image_import"
    worker.run_once()
    assert member.get(f"/tasks/{task['id']}").get_json()["status"] == "success"
    assert [found["id"] for found in member.get("/tasks").get_json()["tasks"]] == [task["id"]]
    assert other.get("/tasks").get_json()["tasks"] == []
    assert other.get(f"/tasks/{task['id']}").status_code == 404
    assert other.get(f"/images/{image_id}/tasks").status_code == 404
    assert member.call("POST", "/tasks", json={"type": "import"}).status_code == 404


def test_invalid_staged_content_is_refused_at_once(cloud: ImageCloud, member: Actor) -> None:
    image_id = member.create()["id"]
    assert stage(member, image_id, QCOW2) == 400
    assert member.show(image_id)["status"] == "queued"
    assert list(cloud.store.directory.iterdir()) == []
    assert stage(member, image_id) == 204


def test_imports_start_from_the_right_status_only(member: Actor, worker: ImportWorker) -> None:
    image_id = member.create()["id"]
    assert start(member, image_id) == 409
    assert start(member, image_id, "copy-image") == 400
    assert start(member, image_id, "web-download") == 400
    assert member.call("POST", f"/images/{image_id}/import", json={}).status_code == 400
    assert stage(member, image_id) == 204
    assert stage(member, image_id) == 409
    assert member.upload(image_id).status_code == 409
    assert start(member, image_id, "web-download", uri="http://example.com/x") == 409
    assert start(member, image_id) == 202
    assert start(member, image_id) == 409
    formless = member.call("POST", "/images", json={}).get_json()["id"]
    assert start(member, formless, "web-download", uri="http://example.com/x") == 409
    assert start(member, str(uuid4())) == 404


def test_a_deleted_staged_image_leaves_nothing(cloud: ImageCloud, member: Actor) -> None:
    image_id = member.create()["id"]
    stage(member, image_id)
    assert member.call("DELETE", f"/images/{image_id}").status_code == 204
    assert list(cloud.store.directory.iterdir()) == []


def test_an_image_is_downloaded(member: Actor, worker: ImportWorker, web: str) -> None:
    image_id = member.create()["id"]
    assert start(member, image_id, "web-download", uri=f"{web}/to/{web}/disk") == 202
    assert worker.run_once()
    assert member.show(image_id)["status"] == "active"
    assert member.get(f"/images/{image_id}/file").data == RAW


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/nothing", "404"),
        ("/cut/disk", "broke off"),
        ("/broken.qcow2", "qcow2"),
        ("/to/http://10.0.0.1/disk", "public"),
        ("/to/http://[fe80::1]/disk", "public"),
        ("/to/file:///etc/passwd", "http"),
        ("/to/http://nobody.invalid/", "not found"),
    ],
)
def test_failed_download_has_a_message_and_can_be_repeated(
    cloud: ImageCloud, member: Actor, worker: ImportWorker, web: str, path: str, said: str
) -> None:
    image_id = member.create()["id"]
    assert start(member, image_id, "web-download", uri=web + path) == 202
    assert worker.run_once()
    image = member.show(image_id)
    assert image["status"] == "queued"
    assert image["os_glance_failed_import"]
    [task] = member.get(f"/images/{image_id}/tasks").get_json()["tasks"]
    assert task["status"] == "failure"
    assert said in task["message"]
    assert list(cloud.store.directory.iterdir()) == []
    cloud.clock.advance(1)
    assert start(member, image_id, "web-download", uri=f"{web}/disk") == 202
    assert worker.run_once()
    image = member.show(image_id)
    assert image["status"] == "active"
    assert "os_glance_failed_import" not in image


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "ftp://example.com/disk",
        "http:///disk",
        "http://example.com:22/disk",
        "http://user:password@example.com/disk",
        "http://example.com:x/disk",
        "http://example.com/a b",
        "gopher://example.com/",
    ],
)
def test_urls_that_are_not_for_downloads_are_refused_at_once(cloud: ImageCloud, member: Actor, uri: str) -> None:
    image_id = member.create()["id"]
    assert start(member, image_id, "web-download", uri=uri) == 400
    assert member.show(image_id)["status"] == "queued"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "10.1.2.3",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.1.1",
        "0.0.0.0",
        "224.0.0.1",
        "[::1]",
        "[::]",
        "[fe80::a9fe:a9fe]",
        "[fd00::1]",
        "[ff02::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::a00:1]",
        "[2002:7f00:1::]",
        "[fec0::1]",
        "[3fff::1]",
        "[5f00::1]",
        "[100::1]",
        "[2001:2::1]",
        "[2001:db8::1]",
        "[::7f00:1]",
        "192.0.0.8",
        "192.88.99.1",
        "198.18.0.1",
        "255.255.255.255",
        "[2a0a:e5c1:111::1]",
        "2130706433",
        "0x7f.1",
    ],
)
def test_addresses_that_only_the_cloud_can_reach_are_not_reached(
    member: Actor, worker: ImportWorker, host: str
) -> None:
    worker.egress_policy = EgressPolicy.from_settings("80,443", "", "2a0a:e5c1:111::/48")
    image_id = member.create()["id"]
    assert start(member, image_id, "web-download", uri=f"http://{host}/disk") == 202
    assert worker.run_once()
    [task] = member.get(f"/images/{image_id}/tasks").get_json()["tasks"]
    assert task["status"] == "failure"
    assert f"{host.strip('[]')} was not found or has no public address" in task["message"]


def test_refused_and_unknown_names_give_the_same_message(
    member: Actor, worker: ImportWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message reveals neither that an internal name exists nor its address."""

    def resolve(host: str, port: int, **more: Any) -> Any:
        if host == "internal.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.20.30.40", port))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    messages = set()
    for host in ("internal.example", "nowhere.example"):
        image_id = member.create()["id"]
        assert start(member, image_id, "web-download", uri=f"http://{host}/disk") == 202
        assert worker.run_once()
        [task] = member.get(f"/images/{image_id}/tasks").get_json()["tasks"]
        messages.add(task["message"].replace(host, "HOST"))
    [message] = messages
    assert "10.20.30.40" not in message


@pytest.mark.parametrize(("path", "status"), [("/disk", "success"), ("/to/{url}/disk", "failure")])
def test_import_connects_to_the_address_that_was_checked(
    member: Actor, worker: ImportWorker, web: str, monkeypatch: pytest.MonkeyPatch, path: str, status: str
) -> None:
    """DNS rebinding: the user's name server returns first an allowed address, then an internal one."""
    port = int(web.rpartition(":")[2])
    worker.egress_policy = EgressPolicy(ports=frozenset(), allowed=(ip_network("127.0.0.2/32"),))
    answers, real, url = ["127.0.0.2", "127.0.0.1"], socket.getaddrinfo, f"http://rebinding.example:{port}"

    def rebind(host: str, *arguments: Any, **more: Any) -> Any:
        address = answers.pop(0) if host == "rebinding.example" else host
        return real(address, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    with ThreadingHTTPServer(("127.0.0.2", port), Web) as allowed:
        thread = threading.Thread(target=allowed.serve_forever)
        thread.start()
        Web.seen.clear()
        image_id = member.create()["id"]
        assert start(member, image_id, "web-download", uri=url + path.format(url=url)) == 202
        assert worker.run_once()
        allowed.shutdown()
        thread.join()
    [task] = member.get(f"/images/{image_id}/tasks").get_json()["tasks"]
    assert task["status"] == status, task
    assert Web.seen == [path.format(url=url)], "no request reached 127.0.0.1"
    assert status == "success" or "rebinding.example was not found or has no public address" in task["message"]


@pytest.mark.parametrize("method", ["glance-direct", "web-download"])
@pytest.mark.parametrize("at", ["before it begins", "while it is done", "just before it ends"])
def test_an_image_deleted_while_it_is_imported_leaves_nothing(
    cloud: ImageCloud,
    member: Actor,
    worker: ImportWorker,
    web: str,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    at: str,
) -> None:
    image_id = member.create()["id"]
    if method == "glance-direct":
        stage(member, image_id)
    assert start(member, image_id, method, **({"uri": f"{web}/disk"} if method == "web-download" else {})) == 202
    execute, with_deadline, check_staged = worker._execute, worker._with_deadline, worker._check_staged

    def delete() -> None:
        assert member.call("DELETE", f"/images/{image_id}").status_code == 204
        cloud.clock.advance(RENEW_SECONDS)

    def ending(job: Job) -> StoredContent | None:
        stored = execute(job)
        delete()
        return stored

    def coming(pieces: Iterator[bytes], alive: Callable[[], None]) -> Iterator[bytes]:
        delete()
        return with_deadline(pieces, alive)

    def moving(image: str) -> None:
        delete()
        check_staged(image)

    if at == "before it begins":
        delete()
    elif at == "while it is done":
        monkeypatch.setattr(worker, "_with_deadline", coming)
        monkeypatch.setattr(worker, "_check_staged", moving)
    else:
        monkeypatch.setattr(worker, "_execute", ending)
    assert worker.run_once() is (at != "before it begins")
    assert not worker.run_once()
    assert member.get(f"/images/{image_id}").status_code == 404
    assert list(cloud.store.directory.iterdir()) == []
    [listed] = member.get("/tasks").get_json()["tasks"]
    task = member.get(f"/tasks/{listed['id']}").get_json()
    assert (task["status"], task["message"]) == ("failure", "The image was deleted.")


def test_import_from_a_slow_server_ends_when_the_image_is_deleted(
    cloud: ImageCloud, member: Actor, worker: ImportWorker, web: str
) -> None:
    """The worker renews its lease however slowly bytes arrive; deleting the image ends the import."""
    image_id = member.create()["id"]
    assert start(member, image_id, "web-download", uri=f"{web}/drip") == 202
    Web.hurry.clear()
    Web.seen.clear()
    busy = threading.Thread(target=worker.run_once)
    busy.start()

    def lease() -> datetime | None:
        with cloud.database.reading() as session:
            return session.scalars(select(ImageTask.worker_until)).one()

    def wait_until(look: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not look():
            assert time.monotonic() < end
            time.sleep(0.02)

    try:
        wait_until(lambda: Web.seen == ["/drip"])
        cloud.clock.advance(RENEW_SECONDS)
        renewed = cloud.clock.now() + timedelta(seconds=LEASE_SECONDS)
        wait_until(lambda: lease() == renewed)
        assert member.call("DELETE", f"/images/{image_id}").status_code == 204
        cloud.clock.advance(RENEW_SECONDS)
        busy.join(30)
        assert not busy.is_alive()
    finally:
        Web.hurry.set()
        busy.join()
    assert list(cloud.store.directory.iterdir()) == []


def test_import_with_an_expired_lease_is_run_again(
    cloud: ImageCloud, member: Actor, worker: ImportWorker, web: str
) -> None:
    image_id = member.create()["id"]
    start(member, image_id, "web-download", uri=f"{web}/disk")
    from image_api.imports import imports

    with cloud.database.transaction() as session:
        assert imports.claim(session, "somebody who dies", cloud.clock.now())
    assert not worker.run_once()
    cloud.clock.advance(imports.LEASE_SECONDS + 1)
    assert worker.run_once()
    assert member.show(image_id)["status"] == "active"


def test_uploads_and_imports_of_dead_processes_are_reset(
    cloud: ImageCloud, member: Actor, worker: ImportWorker, web: str
) -> None:
    from image_api.imports import imports, uploads
    from image_api.models import Image, ImageTask
    from image_api.states import ImageStatus

    saving, staging, staged, importing, living = (member.create(name=name)["id"] for name in "abcde")
    stage(member, staged)
    start(member, importing, "web-download", uri=f"{web}/disk")
    now = cloud.clock.now()
    with cloud.database.transaction() as session:
        uploads.claim(session, session.get_one(Image, saving), ImageStatus.SAVING, now)
        uploads.claim(session, session.get_one(Image, staging), ImageStatus.UPLOADING, now)
        imports.claim(session, "dead", now)
        alive = session.get_one(Image, living)
        uploads.claim(session, alive, ImageStatus.SAVING, now)
        for row in session.scalars(select(Image).where(Image.writer.is_not(None), Image.id != living)):
            row.writer_host = DEAD
        session.scalars(select(ImageTask)).one().worker_host = DEAD
    (cloud.store.directory / f".{saving}.999999999-1.abc.part").write_bytes(b"half")
    with cloud.store.writer(living) as writer:
        cloud.store.remove_abandoned_parts()
        writer.commit()
    cloud.store.delete(living)
    with cloud.database.transaction() as session:
        images.release_dead_claims(session, now)
    assert [member.show(image_id)["status"] for image_id in (saving, staging, staged, importing, living)] == [
        "queued",
        "queued",
        "uploading",
        "importing",
        "saving",
    ]
    assert [path.name for path in cloud.store.directory.iterdir()] == [f"{staged}.staged"]
    assert worker.run_once()
    assert member.show(importing)["status"] == "active"
    assert member.upload(saving).status_code == 204
    assert start(member, staged) == 202
    assert worker.run_once()
    assert member.show(staged)["status"] == "active"


def test_another_host_that_is_alive_keeps_its_upload(cloud: ImageCloud, member: Actor) -> None:
    from image_api.imports import uploads
    from image_api.models import Image
    from image_api.states import ImageStatus

    image_id = member.create()["id"]
    now = cloud.clock.now()
    with cloud.database.transaction() as session:
        uploads.claim(session, session.get_one(Image, image_id), ImageStatus.SAVING, now)
        session.get_one(Image, image_id).writer_host = "another 1 1"
        images.release_dead_claims(session, now)
    assert member.show(image_id)["status"] == "saving"
    cloud.clock.advance(uploads.LEASE_SECONDS + 1)
    with cloud.database.transaction() as session:
        images.release_dead_claims(session, cloud.clock.now())
    assert member.show(image_id)["status"] == "queued"


def test_the_thread_does_imports_when_nudged(member: Actor, worker: ImportWorker, web: str) -> None:
    worker.start()
    try:
        image_id = member.create()["id"]
        start(member, image_id, "web-download", uri=f"{web}/disk")
    finally:
        worker.stop()
    assert member.show(image_id)["status"] in ("active", "importing")
