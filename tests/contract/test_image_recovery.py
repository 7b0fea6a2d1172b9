"""Recovery of images after kill -9 of all processes: no partial files, no stuck states, imports restart."""

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from openstack.connection import Connection

from tests.contract.conftest import Cloud, wait_until
from tests.contract.test_image_clients import Wire

CONTENT = os.urandom(5 << 20)


class SlowWeb:
    """A web server that sends half a file, and the rest after `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.half_sent = threading.Event()
        web = self

        class Files(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(CONTENT)))
                self.end_headers()
                try:
                    self.wfile.write(CONTENT[: len(CONTENT) // 2])
                    self.wfile.flush()
                    web.half_sent.set()
                    web.go_on.wait(120)
                    self.wfile.write(CONTENT[len(CONTENT) // 2 :])
                except OSError:
                    return

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/disk"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def end(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowWeb]:
    """A slow web server; clouds started after this fixture may import from it."""
    monkeypatch.setenv("SIXSTACK_IMAGE_IMPORT_PORTS", "")
    monkeypatch.setenv("SIXSTACK_IMAGE_IMPORT_ALLOW", "127.0.0.0/8")
    made = SlowWeb()
    yield made
    made.end()


def objects(cloud: Cloud) -> list[str]:
    return sorted(path.name for path in (cloud.state / "images" / "store").iterdir())


def queued(connection: Connection, name: str) -> Any:
    return connection.image.create_image(name, disk_format="raw", container_format="bare")


def test_kill_9_during_uploads_and_imports(web: SlowWeb, other_cloud: Cloud) -> None:
    before = objects(other_cloud)
    with other_cloud.connect() as connection:
        upload, stage, imported = (queued(connection, name) for name in ("upload", "stage", "import"))
        base = connection.image.get_endpoint().removesuffix("/").removesuffix("/v2")
        wire = Wire(base, connection.auth_token)
        sockets = [wire.begin(image.id, None, verb) for image, verb in ((upload, "file"), (stage, "stage"))]
        for connected in sockets:
            connected.sendall(b"%x\r\n" % (1 << 30) + CONTENT)
        connection.image.import_image(imported, method="web-download", uri=web.url)
        wait_until(lambda: connection.image.get_image(upload.id).status == "saving")
        wait_until(lambda: connection.image.get_image(stage.id).status == "uploading")
        wait_until(lambda: len([name for name in objects(other_cloud) if name.endswith(".part")]) == 3)
        assert web.half_sent.wait(30)
        other_cloud.kill()
        for connected in sockets:
            connected.close()
        web.go_on.set()
        other_cloud.up()
        assert connection.image.get_image(upload.id).status == "queued"
        assert connection.image.get_image(stage.id).status == "queued"
        wait_until(lambda: connection.image.get_image(imported.id).status == "active", seconds=60)
        assert connection.image.get_image(imported.id).checksum == hashlib.md5(CONTENT).hexdigest()
        assert objects(other_cloud) == sorted([*before, imported.id])
        url = f"{base}/v2/images/{upload.id}/file"
        assert requests.put(url, data=CONTENT, headers=wire.upload_headers, timeout=60).status_code == 204
        assert connection.image.download_image(upload.id).content == CONTENT
