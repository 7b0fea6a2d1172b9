"""Images through real clients: the openstack and glance commands, openstacksdk, and raw sockets."""

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from openstack.connection import Connection

from tests.contract.conftest import BIN, Cloud, wait_until

MIB = 1 << 20
CONTENT = os.urandom(3 * MIB + 11)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    path.write_bytes(CONTENT)
    return path


@dataclass(frozen=True)
class Commands:
    """Runs the `openstack image` and `glance` commands as the demo user."""

    cloud: Cloud
    directory: Path

    def openstack(self, *words: str, cloud: str = "sixstack", check: bool = True) -> str:
        return self.cloud.cli("image", *words, cloud=cloud, check=check)

    def json(self, *words: str, cloud: str = "sixstack") -> Any:
        return json.loads(self.openstack(*words, "-f", "json", cloud=cloud))

    def glance(self, *words: str, check: bool = True) -> str:
        with self.cloud.connect() as connection:
            auth = connection.config.config["auth"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        environment |= {f"OS_{name.upper()}": str(value) for name, value in auth.items()}
        environment |= {"OS_IDENTITY_API_VERSION": "3", "HOME": str(self.directory)}
        done = subprocess.run(
            [BIN / "glance", *words], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def id_of(self, table: str) -> str:
        """Return the image id in the table printed by `glance`."""
        [row] = [line for line in table.splitlines() if line.startswith("| id ")]
        return row.split("|")[2].strip()


@pytest.fixture
def commands(cloud: Cloud, tmp_path: Path) -> Iterator[Commands]:
    yield Commands(cloud, tmp_path)
    with cloud.connect() as connection:
        for image in list(connection.image.images(visibility="shared")):
            connection.image.delete_image(image.id)


def test_the_openstack_command_from_upload_to_delete(commands: Commands, disk: Path) -> None:
    raw = ["--disk-format", "raw", "--container-format", "bare"]
    made = commands.json("create", *raw, "--file", str(disk), "--property", "a=b", "--tag", "t", "one", "--progress")
    assert made["status"] == "active"
    assert made["checksum"] == hashlib.md5(CONTENT).hexdigest()
    assert made["properties"]["os_hash_value"] == hashlib.sha512(CONTENT).hexdigest()
    assert "one" in commands.openstack("list", "--status", "active", "--tag", "t", "--property", "a=b")
    commands.openstack("set", "one", "--name", "two", "--min-disk", "3", "--property", "c=d", "--tag", "u", "--hidden")
    shown = commands.json("show", "two")
    assert (shown["min_disk"], shown["properties"]["c"], shown["tags"]) == (3, "d", ["t", "u"])
    assert "two" in commands.openstack("list", "--hidden")
    commands.openstack("unset", "two", "--property", "c", "--tag", "u")
    commands.openstack("set", "two", "--unhidden", "--protected")
    assert "protected" in commands.openstack("delete", "two", check=False)
    commands.openstack("set", "two", "--unprotected", "--deactivate")
    assert commands.json("show", "two")["status"] == "deactivated"
    commands.openstack("set", "two", "--activate")
    saved = commands.directory / "saved"
    commands.openstack("save", "--file", str(saved), "two")
    assert saved.read_bytes() == CONTENT
    commands.openstack("delete", "two")
    assert "two" not in commands.openstack("list")


def test_the_openstack_command_shares(commands: Commands, disk: Path, cloud: Cloud) -> None:
    raw = ["--disk-format", "raw", "--container-format", "bare"]
    commands.openstack("create", *raw, "--file", str(disk), "--shared", "mine")
    image_id = commands.json("show", "mine")["id"]
    project = json.loads(cloud.cli("project", "show", "admin", "-f", "json", cloud="sixstack-admin"))["id"]
    assert commands.json("add", "project", "mine", project)["status"] == "pending"
    assert commands.json("member", "list", "mine")[0]["Member ID"] == project
    commands.openstack("set", "--accept", "--project", project, image_id, cloud="sixstack-admin")
    assert commands.json("member", "list", "mine")[0]["Status"] == "accepted"
    commands.openstack("remove", "project", "mine", project)
    assert commands.json("member", "list", "mine") == []


def test_the_openstack_command_stages_and_imports(commands: Commands, disk: Path) -> None:
    raw = ["--disk-format", "raw", "--container-format", "bare"]
    assert "glance-direct" in commands.openstack("import", "info")
    made = commands.json("create", *raw, "--import", "--file", str(disk), "imported")
    wait_until(lambda: commands.json("show", made["id"])["status"] == "active", seconds=30)
    assert commands.json("create", *raw, "staged")["status"] == "queued"
    commands.openstack("stage", "--file", str(disk), "staged")
    assert commands.json("show", "staged")["status"] == "uploading"
    commands.openstack("import", "--method", "glance-direct", "staged")
    wait_until(lambda: commands.json("show", "staged")["status"] == "active", seconds=30)
    assert commands.json("show", "staged")["checksum"] == hashlib.md5(CONTENT).hexdigest()
    assert commands.json("task", "list")[0]["Status"] == "success"


def test_a_download_from_inside_the_cloud_is_refused(commands: Commands, cloud: Cloud) -> None:
    raw = ["--disk-format", "raw", "--container-format", "bare"]
    commands.openstack("create", *raw, "inside")
    commands.openstack("import", "--method", "web-download", "--uri", "http://127.0.0.1/disk", "inside")

    def failed() -> bool:
        return bool(commands.json("task", "list")[0]["Status"] == "failure")

    wait_until(failed, seconds=30)
    assert commands.json("show", "inside")["status"] == "queued"


def test_openstack_command_prints_image_errors(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "base.raw").write_bytes(bytes(MIB))
    evil = tmp_path / "evil.qcow2"
    create = ["qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", tmp_path / "base.raw", evil]
    subprocess.run(create, check=True, capture_output=True)
    qcow2 = ["--disk-format", "qcow2", "--container-format", "bare"]
    said = commands.openstack("create", *qcow2, "--file", str(evil), "evil", check=False)
    assert "backing file" in said
    assert "evil" not in commands.openstack("list")


def test_the_glance_command(commands: Commands, disk: Path, cloud: Cloud) -> None:
    raw = ["--disk-format", "raw", "--container-format", "bare"]
    image_id = commands.id_of(commands.glance("image-create", "--name", "g", *raw, "--file", str(disk), "--progress"))
    assert image_id in commands.glance("image-list")
    saved = commands.directory / "downloaded"
    commands.glance("image-download", "--file", str(saved), "--progress", image_id)
    assert saved.read_bytes() == CONTENT
    commands.glance("image-tag-update", image_id, "tagged")
    assert "tagged" in commands.glance("image-show", image_id)
    commands.glance("image-tag-delete", image_id, "tagged")
    assert "| foo" in commands.glance("image-update", "--property", "foo=bar", image_id)
    assert "| foo" not in commands.glance("image-update", "--remove-property", "foo", image_id)
    project = json.loads(cloud.cli("project", "show", "admin", "-f", "json", cloud="sixstack-admin"))["id"]
    assert "pending" in commands.glance("member-create", image_id, project)
    assert project in commands.glance("member-list", "--image-id", image_id)
    commands.glance("member-delete", image_id, project)
    commands.glance("image-deactivate", image_id)
    commands.glance("image-reactivate", image_id)
    assert "image_count_total" in commands.glance("usage")
    assert "web-download" in commands.glance("import-info")
    assert "no attribute" not in commands.glance("stores-info", check=False)
    commands.glance("image-delete", image_id)
    assert "No image found" in commands.glance("image-show", image_id, check=False)


def test_the_glance_command_imports(commands: Commands, disk: Path) -> None:
    raw = ["--disk-format", "raw", "--container-format", "bare"]
    image_id = commands.id_of(commands.glance("image-create", "--name", "st", *raw))
    commands.glance("image-stage", "--file", str(disk), image_id)
    commands.glance("image-import", "--import-method", "glance-direct", image_id)
    wait_until(lambda: "active" in commands.glance("image-show", image_id), seconds=30)


def test_sdk_uploads_finds_and_updates_images(connection: Connection, disk: Path) -> None:
    arguments = {"disk_format": "raw", "container_format": "bare", "wait": True}
    sums = {"md5": hashlib.md5(CONTENT).hexdigest(), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    image = connection.create_image("sdk", data=CONTENT, **arguments, **sums)
    assert image.status == "active"
    assert connection.image.download_image(image).content == CONTENT
    assert connection.get_image("sdk").id == image.id
    assert connection.update_image_properties(image=image, role="test")
    assert connection.get_image(image.id).properties["role"] == "test"
    assert [found.id for found in connection.image.images(name="sdk", sort="created_at:desc")] == [image.id]
    assert connection.delete_image("sdk", wait=True)


@dataclass(frozen=True)
class Wire:
    """Raw HTTP access to the image API."""

    base: str
    token: str

    def create(self) -> str:
        body = {"name": "wire", "disk_format": "raw", "container_format": "bare"}
        made = requests.post(f"{self.base}/v2/images", json=body, headers=self.headers, timeout=30)
        image_id: str = made.json()["id"]
        return image_id

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Auth-Token": self.token}

    @property
    def upload_headers(self) -> dict[str, str]:
        return {**self.headers, "Content-Type": "application/octet-stream"}

    def begin(self, image_id: str, length: int | None, verb: str = "file") -> socket.socket:
        """Open a connection and send the head of an upload."""
        host, port = self.base.removeprefix("http://").partition("/")[0].rsplit(":", 1)
        connection = socket.create_connection((host, int(port)))
        size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        lines = [f"PUT /image/v2/images/{image_id}/{verb} HTTP/1.1", f"Host: {host}", size]
        lines += [f"{name}: {value}" for name, value in self.upload_headers.items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection


@pytest.fixture
def wire(connection: Connection) -> Iterator[Wire]:
    base = connection.image.get_endpoint().removesuffix("/").removesuffix("/v2")
    made = Wire(base, connection.auth_token)
    yield made
    for image in list(connection.image.images(name="wire", limit=1000)):
        connection.image.delete_image(image.id)


@pytest.mark.parametrize("size", [1, 65537, 3 * MIB])
def test_chunked_uploads_of_every_size_arrive(wire: Wire, size: int) -> None:
    content = os.urandom(size)
    image_id = wire.create()
    url = f"{wire.base}/v2/images/{image_id}/file"
    answer = requests.put(url, data=iter([content]), headers=wire.upload_headers, timeout=60)
    assert answer.status_code == 204, answer.text
    assert requests.get(url, headers=wire.headers, timeout=60).content == content


@pytest.mark.parametrize("way", ["closed", "half closed", "reset"])
@pytest.mark.parametrize("size", [1000, 300_000, 5 * MIB])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "sized"])
def test_broken_upload_is_not_accepted_as_complete(wire: Wire, chunked: bool, size: int, way: str) -> None:
    image_id = wire.create()
    content = os.urandom(size)
    connection = wire.begin(image_id, None if chunked else size + 1)
    connection.sendall(b"%x\r\n%b\r\n" % (size, content) if chunked else content)
    if way == "half closed":
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(30)
        assert b" 400 " in connection.recv(100)
    elif way == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    url = f"{wire.base}/v2/images/{image_id}/file"

    def upload_again() -> bool:
        """Upload again: 409 until the server detects the broken upload, and forever if it accepted that as complete."""
        answer = requests.put(url, data=content, headers=wire.upload_headers, timeout=60)
        assert answer.status_code in (204, 409), answer.text
        return answer.status_code == 204

    wait_until(upload_again, seconds=30)
    assert requests.get(url, headers=wire.headers, timeout=60).content == content


def test_memory_stays_flat_over_a_large_upload_and_download(wire: Wire, cloud: Cloud) -> None:
    block, count = os.urandom(MIB), 2048
    image_id = wire.create()
    before, peak, stop = memory_mib(cloud), [0.0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], memory_mib(cloud))
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        url = f"{wire.base}/v2/images/{image_id}/file"
        pieces = (block for _ in range(count))
        answer = requests.put(url, data=pieces, headers=wire.upload_headers, timeout=600)
        assert answer.status_code == 204, answer.text
        with requests.get(url, headers=wire.headers, stream=True, timeout=600) as download:
            assert sum(len(piece) for piece in download.iter_content(MIB)) == count * MIB
    finally:
        stop.set()
        watcher.join()
    assert peak[0] - before < 50


def memory_mib(cloud: Cloud) -> float:
    """Return the resident memory of the largest API process."""
    sizes = [0.0]
    for pid in cloud.pids():
        with contextlib.suppress(OSError):
            if b"app.server" in Path(f"/proc/{pid}/cmdline").read_bytes():
                status = Path(f"/proc/{pid}/status").read_text()
                sizes += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")]
    return max(sizes)


def test_api_responds_during_many_slow_uploads(wire: Wire) -> None:
    begun = [wire.begin(wire.create(), 1000) for _ in range(30)]
    try:
        started = time.monotonic()
        assert requests.get(f"{wire.base}/v2/images", headers=wire.headers, timeout=10).status_code == 200
        assert time.monotonic() - started < 5
    finally:
        for connection in begun:
            connection.close()
