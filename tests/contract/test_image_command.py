"""`sixstack image import`: files and URLs, progress bar, and error messages."""

import gzip
import os
import pty
import subprocess
import threading
from collections.abc import Iterator
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from tests.contract.conftest import BIN
from tests.contract.identity_cloud import IdentityCloud, identity_cloud

CONTENT = os.urandom(3 << 20)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityCloud]:
    with identity_cloud(tmp_path_factory.mktemp("image")) as made:
        yield made


@pytest.fixture
def admin(cloud: IdentityCloud) -> Iterator[Connection]:
    config = OpenStackConfig(config_files=[str(cloud.clouds_yaml)], load_envvars=False)
    with Connection(config=config.get_one(cloud="sixstack-admin")) as connection:
        yield connection
        for image in list(connection.image.images()):
            connection.image.delete_image(image.id)


class Handler(BaseHTTPRequestHandler):
    """Serves an image, a redirect to it, and a truncated image."""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/disk.raw")
            self.end_headers()
        elif self.path in ("/disk.raw", "/cut.raw"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT if self.path == "/disk.raw" else CONTENT[: 2 << 20])
        else:
            self.send_error(404, "Not Found")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def command(cloud: IdentityCloud, *words: str | Path) -> list[str]:
    return [str(BIN / "sixstack"), "image", "import", "--state", str(cloud.work / "state"), *map(str, words)]


def bring(cloud: IdentityCloud, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(cloud, *words), capture_output=True, text=True, timeout=60)


def test_files_and_urls_become_images(cloud: IdentityCloud, admin: Connection, web: str, tmp_path: Path) -> None:
    packed = tmp_path / "packed.raw.gz"
    packed.write_bytes(gzip.compress(CONTENT, 1))
    for source, name, content in (
        (packed, "packed", packed.read_bytes()),
        (f"{web}/disk.raw", "disk", CONTENT),
        (f"{web}/moved", "moved", CONTENT),
    ):
        done = bring(cloud, source, "--property", "a=b")
        assert done.returncode == 0, done.stderr
        [image] = admin.image.images(name=name)
        assert done.stdout.split()[:3] == [image.id, name, "active"]
        assert (image.disk_format, image.visibility, image.properties["a"]) == ("raw", "public", "b")
        assert image.checksum == md5(content).hexdigest()


def test_errors_are_one_line_and_leave_no_image(
    cloud: IdentityCloud, admin: Connection, web: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "lie.raw").write_bytes(b"QFI\xfb" + bytes(1000))
    for source, said in (
        (f"{web}/cut.raw", "broke off"),
        (f"{web}/nowhere", "answered 404"),
        ("http://127.0.0.1:1/disk", "Connection refused"),
        ("ftp://example.org/disk", "only http and https"),
        (tmp_path / "nowhere", "No such file"),
        (tmp_path / "empty", "is empty"),
        (tmp_path / "lie.raw", "not a safe qcow2"),
    ):
        done = bring(cloud, source)
        assert done.returncode == 1
        assert said in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert list(admin.image.images()) == []


def test_a_bar_moves_until_ctrl_c_which_leaves_nothing(cloud: IdentityCloud, admin: Connection, tmp_path: Path) -> None:
    pipe = tmp_path / "slow"
    os.mkfifo(pipe)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["env", "--default-signal=INT", "setsid", "--ctty", *command(cloud, pipe, "--name", "slow")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    seen = ""
    with pipe.open("wb", buffering=0) as feeding:
        while "MiB/s" not in seen:
            feeding.write(bytes(1 << 20))
            try:
                seen += os.read(ours, 4096).decode()
            except BlockingIOError:
                continue
        os.write(ours, b"\x03")
        assert process.wait(120) == 130
    os.close(ours)
    assert list(admin.image.images()) == []
