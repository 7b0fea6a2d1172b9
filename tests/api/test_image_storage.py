# ruff: noqa: F811 (fixtures come by import)
"""Image store (files, S3), compressed uploads, quotas, full disks, and image access of hosts."""

import gzip
import hashlib
import io
import lzma
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
import zstandard
from moto.server import ThreadedMotoServer

from app.core import errors
from app.core.settings import Settings
from compute_agent.images.source import FetchedImages, LocalImages
from hypervisor.api.errors import ImageUnusable
from hypervisor.api.spec import ImageRef
from image_api import images
from image_api.imports import recovery, snapshots, uploads
from image_api.imports.snapshots import Snapshot
from image_api.ingest import ingest
from image_api.ingest.ingest import Limits, StoredContent
from image_api.models import Image
from image_api.routes.transfers import TransferLimiter
from image_api.states import ImageStatus
from image_api.stores.file import FileStore, Store, StoreFull
from image_api.stores.s3 import S3Store
from tests.api.image_fixtures import CALLERS, RAW, Actor, ImageCloud, admin, cloud, member, other  # noqa: F401

MIB = 1 << 20
CHUNKED = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}


@pytest.fixture
def qcow2(tmp_path: Path) -> bytes:
    """A qcow2 image of a 4 MiB disk."""
    path = tmp_path / "made.qcow2"
    subprocess.run(["qemu-img", "create", "-f", "qcow2", path, "4M"], check=True, capture_output=True)
    return path.read_bytes()


def ref(cloud: ImageCloud, image_id: str) -> ImageRef:
    with cloud.database.reading() as session:
        image = session.get_one(Image, image_id)
    return ImageRef(
        id=image.id,
        disk_format=image.stored_format or "",
        size_bytes=image.disk_size or 0,
        virtual_size_bytes=image.virtual_size or 0,
        sha512=image.disk_hash,
    )


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress])
def test_compressed_images_are_unpacked_only_for_hosts(
    cloud: ImageCloud, member: Actor, qcow2: bytes, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack(qcow2)
    image = member.make(packed, disk_format="qcow2")
    assert image["checksum"] == hashlib.md5(packed).hexdigest()
    assert image["os_hash_value"] == hashlib.sha512(packed).hexdigest()
    assert image["size"] == len(packed)
    assert image["virtual_size"] == 4 * MIB
    assert image["sixstack_compression"] in ("gz", "xz", "zst")
    assert member.get(f"/images/{image['id']}/file").data == packed
    asked = ref(cloud, image["id"])
    path = LocalImages(cloud.store).local_path(asked)
    assert path.read_bytes() == qcow2
    assert asked.disk_format == "qcow2"
    assert asked.sha512 == hashlib.sha512(qcow2).hexdigest()
    assert path.stat().st_mode & 0o777 == 0o600
    member.call("DELETE", f"/images/{image['id']}")
    assert list(cloud.store.directory.iterdir()) == []
    with pytest.raises(ImageUnusable):
        LocalImages(cloud.store).local_path(asked)


def test_a_hostile_file_inside_a_compressed_one_is_found(cloud: ImageCloud, member: Actor, tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(bytes(MIB))
    path = tmp_path / "evil.qcow2"
    command = ["qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", tmp_path / "base", path]
    subprocess.run(command, check=True, capture_output=True)
    image_id = member.create(disk_format="qcow2")["id"]
    for content in (path.read_bytes(), gzip.compress(path.read_bytes())):
        response = member.upload(image_id, content)
        assert response.status_code == 400
        assert "backing file" in response.get_json()["message"]
        assert member.show(image_id)["status"] == "queued"
        assert list(cloud.store.directory.iterdir()) == []


def test_a_declared_format_that_is_wrong_is_overruled_or_refused(member: Actor, qcow2: bytes) -> None:
    image = member.make(qcow2, disk_format="raw")
    assert image["disk_format"] == "raw"
    assert image["sixstack_format"] == "qcow2"
    image_id = member.create(disk_format="vmdk")["id"]
    response = member.upload(image_id, RAW)
    assert response.status_code == 400
    assert "vmdk" in response.get_json()["message"]
    assert "raw" in response.get_json()["message"]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_bomb_stops_at_the_limit(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    store = FileStore(tmp_path / "store")
    limits = ingest.Limits(object_bytes=16 * MIB, disk_bytes=16 * MIB)
    with pytest.raises(errors.TooLarge, match="larger"):
        ingest.ingest(iter([pack(bytes(17 * MIB))]), store, "bomb", "raw", limits)
    assert list(store.directory.iterdir()) == []


def test_image_with_an_enormous_virtual_size_is_refused(cloud: ImageCloud, member: Actor, tmp_path: Path) -> None:
    path = tmp_path / "huge.qcow2"
    subprocess.run(["qemu-img", "create", "-f", "qcow2", path, "2048G"], check=True, capture_output=True)
    image_id = member.create(disk_format="qcow2")["id"]
    response = member.upload(image_id, path.read_bytes())
    assert response.status_code == 400
    assert "2048 GiB" in response.get_json()["message"]


def test_the_quota_of_a_project_holds(cloud: ImageCloud, member: Actor, other: Actor) -> None:
    cloud.configure(image_quota_gib=0)
    image_id = member.create()["id"]
    response = member.upload(image_id)
    assert response.status_code == 413
    assert "quota" in response.get_json()["message"]
    chunked = member.call(
        "PUT",
        f"/images/{image_id}/file",
        input_stream=io.BytesIO(RAW),
        headers={"Content-Type": "application/octet-stream"},
        environ_overrides=CHUNKED,
    )
    assert chunked.status_code == 413
    assert member.show(image_id)["status"] == "queued"
    assert list(cloud.store.directory.iterdir()) == []
    cloud.configure(image_quota_gib=1)
    assert member.upload(image_id).status_code == 204


def test_uploads_side_by_side_do_not_overrun_the_quota(cloud: ImageCloud, member: Actor) -> None:
    cloud.configure(image_quota_gib=1)
    first, second = member.create()["id"], member.create()["id"]

    class Body:
        """During this upload, a second one uses the rest of the quota."""

        sent = 0

        def read(self, count: int = -1) -> bytes:
            self.sent += 1
            if self.sent == 2:
                with cloud.database.transaction() as session:
                    images.find_visible(session, CALLERS["admin"], second).size = (1 << 30) - len(RAW)
            return RAW if self.sent < 3 else b""

    response = member.call(
        "PUT",
        f"/images/{first}/file",
        headers={"Content-Type": "application/octet-stream"},
        environ_overrides={"wsgi.input": Body(), **CHUNKED},
    )
    assert response.status_code == 413
    assert member.show(first)["status"] == "queued"
    assert list(cloud.store.directory.iterdir()) == []


class FullStore(FileStore):
    """A store that is full for writes of more than `room` bytes."""

    room = 1000

    def writer(self, name: str, *, sparse: bool = False):
        writer = super().writer(name, sparse=False)
        write = writer.write

        def limited(piece: bytes) -> None:
            if len(piece) > self.room:
                raise StoreFull
            write(piece)

        writer.write = limited
        return writer


def test_upload_to_a_full_disk_is_413_and_leaves_nothing(cloud: ImageCloud, member: Actor) -> None:
    store = FullStore(cloud.store.directory)
    cloud.app.extensions["sixstack.images.store"] = store
    image_id = member.create()["id"]
    response = member.upload(image_id)
    assert response.status_code == 413
    assert "full" in response.get_json()["message"]
    assert member.show(image_id)["status"] == "queued"
    assert list(store.directory.iterdir()) == []
    store.room = 10 * MIB
    assert member.upload(image_id).status_code == 204


def test_a_real_full_file_system_is_a_413(cloud: ImageCloud, member: Actor, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs to mount a tmpfs: " + mounted.stderr.decode())
    try:
        cloud.app.extensions["sixstack.images.store"] = FileStore(small)
        image_id = member.create()["id"]
        for extra in ({}, CHUNKED):
            response = member.call(
                "PUT",
                f"/images/{image_id}/file",
                data=os.urandom(4 * MIB),
                headers={"Content-Type": "application/octet-stream"},
                environ_overrides=extra,
            )
            assert response.status_code == 413
            assert "full" in response.get_json()["message"]
            assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_image_deleted_during_its_upload_leaves_nothing(cloud: ImageCloud, member: Actor) -> None:
    image_id = member.create()["id"]

    class Body:
        sent = 0

        def read(self, count: int = -1) -> bytes:
            self.sent += 1
            if self.sent == 2:
                assert cloud.actor("member").call("DELETE", f"/images/{image_id}").status_code == 204
            return RAW if self.sent < 4 else b""

    response = member.call(
        "PUT",
        f"/images/{image_id}/file",
        headers={"Content-Type": "application/octet-stream"},
        environ_overrides={"wsgi.input": Body(), **CHUNKED},
    )
    assert response.status_code == 410
    assert list(cloud.store.directory.iterdir()) == []


def test_two_uploads_at_once_never_mix(cloud: ImageCloud, member: Actor) -> None:
    image_id = member.create()["id"]
    statuses: list[int] = []

    def send(letter: bytes) -> None:
        statuses.append(cloud.actor("member").upload(image_id, letter * (3 * MIB)).status_code)

    threads = [threading.Thread(target=send, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [204, 409, 409]
    content = member.get(f"/images/{image_id}/file").data
    assert len(content) == 3 * MIB
    assert len(set(content)) == 1


def test_concurrent_uploads_do_not_exceed_the_quota_together(cloud: ImageCloud, member: Actor) -> None:
    bounds = Limits(len(RAW), len(RAW), 2 * len(RAW) - 1)
    refused: list[str] = []

    def fill(image_id: str, done: Callable[[Image, StoredContent, datetime], None]) -> None:
        now = cloud.clock.now()
        with cloud.database.transaction() as session:
            writer = uploads.claim(session, session.get_one(Image, image_id), ImageStatus.SAVING, now)
        claimed = uploads.UploadClaim(image_id, writer, image_id, "raw")
        try:
            uploads.store_upload(cloud.database, cloud.clock, cloud.store, claimed, iter([RAW]), bounds, done)
        except errors.QuotaExceeded:
            refused.append(image_id)

    first, second = member.create()["id"], member.create()["id"]
    other = threading.Thread(target=fill, args=(second, images.set_active))

    def start_other(image: Image, stored: StoredContent, now: datetime) -> None:
        """Start the other upload between quota check and commit: without locking it finishes before this commit."""
        images.set_active(image, stored, now)
        other.start()
        other.join(0.5)

    fill(first, start_other)
    other.join()
    assert refused == [second]
    assert list(cloud.store.names()) == [first]


def test_orphans_are_removed_and_nothing_else(cloud: ImageCloud, member: Actor) -> None:
    kept = member.make()["id"]
    queued = member.create()["id"]
    gone = str(uuid4())
    for name in (queued, f"{queued}.disk", gone, f"{gone}.disk", f"{gone}.staged"):
        (cloud.store.directory / name).write_bytes(b"left")
    recovery.remove_orphans(cloud.database, cloud.store, cloud.clock)
    assert [path.name for path in cloud.store.directory.iterdir()] == [kept]
    assert member.show(queued)["status"] == "queued"
    assert member.upload(queued).status_code == 204


def test_no_upload_starts_during_removal_of_orphans(
    cloud: ImageCloud, member: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its objects would be removed too. Recovery on other machines keeps the claim of the removal."""
    queued = member.create()["id"]
    (cloud.store.directory / queued).write_bytes(b"left")
    remove, answers = images.delete_objects, []

    def slow(store: Store, image_id: str) -> None:
        with cloud.database.transaction() as session:
            images.release_dead_claims(session, cloud.clock.now())
            uploads.release_expired(session, cloud.clock.now())
        answers.append(member.upload(queued).status_code)
        remove(store, image_id)

    monkeypatch.setattr(images, "delete_objects", slow)
    recovery.remove_orphans(cloud.database, cloud.store, cloud.clock)
    assert answers == [409]
    assert member.upload(queued).status_code == 204


def keep_snapshot(cloud: ImageCloud, image_id: str, content: bytes, *, quota_gib: int = -1, **more: Any) -> None:
    told = {"image_id": image_id, "owner": "demo", "disk_format": "qcow2", "disk_bytes": 1 << 30, **more}
    snapshots.store_snapshot(cloud.database, cloud.clock, cloud.store, Snapshot(**told), iter([content]), quota_gib)


def test_a_snapshot_fills_the_image_that_waits_for_it(
    cloud: ImageCloud, member: Actor, other: Actor, qcow2: bytes
) -> None:
    waiting = member.create(name="mine", role="x")["id"]
    keep_snapshot(cloud, waiting, qcow2, sha512=hashlib.sha512(qcow2).hexdigest())
    image = member.show(waiting)
    assert (image["name"], image["role"], image["status"]) == ("mine", "x", "active")
    assert image["disk_format"] == "qcow2"
    assert member.get(f"/images/{waiting}/file").data == qcow2
    assert other.get(f"/images/{waiting}").status_code == 404
    with pytest.raises(errors.Conflict):
        keep_snapshot(cloud, waiting, qcow2)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"sha512": "00" * 64}, errors.Unavailable),
        ({"quota_gib": 0}, errors.QuotaExceeded),
        ({"disk_bytes": 1 << 20}, errors.BadRequest),
        ({"owner": "other"}, errors.Conflict),
    ],
    ids=["damaged", "over the quota", "larger than the server's disk", "of another project"],
)
def test_a_snapshot_that_is_refused_leaves_nothing(
    cloud: ImageCloud, member: Actor, qcow2: bytes, more: dict[str, Any], reason: type[Exception]
) -> None:
    waiting = member.create()["id"]
    with pytest.raises(reason):
        keep_snapshot(cloud, waiting, qcow2, **more)
    assert member.show(waiting)["status"] == "queued"
    assert list(cloud.store.names()) == []
    keep_snapshot(cloud, waiting, qcow2)
    assert member.show(waiting)["status"] == "active"


def test_interrupted_snapshot_restarts_unless_its_image_is_deleted(
    cloud: ImageCloud, member: Actor, qcow2: bytes
) -> None:
    torn, deleted = member.create()["id"], member.create()["id"]
    told = {"owner": "demo", "disk_format": "qcow2", "disk_bytes": 1 << 30}

    def content(then: Callable[[], object]) -> Iterator[bytes]:
        yield qcow2
        then()

    first = content(lambda: keep_snapshot(cloud, torn, qcow2))
    with pytest.raises(errors.NotFound):  # the retry has taken over its claim
        snapshots.store_snapshot(cloud.database, cloud.clock, cloud.store, Snapshot(torn, **told), first, -1)
    assert member.show(torn)["status"] == "active"
    assert member.get(f"/images/{torn}/file").data == qcow2
    gone = content(lambda: member.call("DELETE", f"/images/{deleted}"))
    with pytest.raises(errors.NotFound):
        snapshots.store_snapshot(cloud.database, cloud.clock, cloud.store, Snapshot(deleted, **told), gone, -1)
    assert list(cloud.store.names()) == [torn]


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    monkeypatch.setattr("image_api.stores.s3.PART_BYTES", 5 * MIB)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    bucket = f"b{uuid4().hex}"
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=bucket)
    client.close()
    return S3Store.connect(f"s3://{bucket}/images?endpoint={s3_endpoint}")


@pytest.fixture(params=["files", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FileStore(tmp_path / "store") if request.param == "files" else request.getfixturevalue("s3")


def put(store: Store, name: str, content: bytes, step: int = MIB) -> None:
    with store.writer(name, sparse=True) as writer:
        for start in range(0, len(content), step):
            writer.write(content[start : start + step])
        writer.commit()


@pytest.mark.parametrize(
    "content",
    [b"", b"x", os.urandom(3 * MIB + 7), bytes(MIB) + b"x" + bytes(MIB), os.urandom(12 * MIB)],
    ids=["empty", "byte", "some", "holes", "parts"],
)
def test_every_store_returns_stored_content(store: Store, content: bytes) -> None:
    put(store, "one", content)
    assert store.size("one") == len(content)
    assert b"".join(store.read("one", 0, len(content))) == content
    assert b"".join(store.read("one", 3, min(5, max(0, len(content) - 3)))) == content[3:8]
    assert list(store.names()) == ["one"]
    store.rename("one", "two")
    store.rename("one", "two")
    assert list(store.names()) == ["two"]
    assert store.size("two") == len(content)
    store.delete("two")
    store.delete("two")
    assert list(store.names()) == []
    with pytest.raises(FileNotFoundError):
        store.size("two")


def test_an_object_that_is_not_finished_is_not_there(store: Store) -> None:
    def interrupted() -> None:
        with store.writer("one") as writer:
            writer.write(os.urandom(12 * MIB))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(store.names()) == []


def test_images_in_object_storage(cloud: ImageCloud, member: Actor, s3: S3Store, tmp_path: Path, qcow2: bytes) -> None:
    cloud.app.extensions["sixstack.images.store"] = s3
    packed = gzip.compress(qcow2)
    image = member.make(packed, disk_format="qcow2")
    response = member.get(f"/images/{image['id']}/file", headers={"Range": "bytes=5-9"})
    assert response.data == packed[5:10]
    assert member.get(f"/images/{image['id']}/file").data == packed
    hosts = FetchedImages(s3, tmp_path / "fetched")
    assert hosts.local_path(ref(cloud, image["id"])).read_bytes() == qcow2
    assert member.upload(member.create(disk_format="qcow2")["id"], b"QFI\xfb" + bytes(5000)).status_code == 400
    member.call("DELETE", f"/images/{image['id']}")
    assert list(s3.names()) == []


def test_holes_stay_holes(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    put(store, "disk", bytes(64 * MIB) + b"x" + bytes(64 * MIB))
    assert (store.directory / "disk").stat().st_blocks * 512 < MIB


def test_files_written_in_odd_pieces_are_complete_and_sparse(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    content = os.urandom(5 * MIB) + bytes(4 * MIB) + os.urandom(3 * MIB - 5) + bytes(100_000)
    put(store, "disk", content, step=77_777)
    assert (store.directory / "disk").read_bytes() == content
    assert (store.directory / "disk").stat().st_blocks * 512 < 9 * MIB


def test_an_upload_in_pieces_of_any_size_has_the_same_hash(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    content = os.urandom(2 * MIB + 17)
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        part = content[position : position + min(count, 1009)]
        position += len(part)
        return part

    stored = ingest.ingest(ingest.read_pieces(read), store, "one", "raw", ingest.Limits(1 << 30, 1 << 30))
    assert stored.checksum == hashlib.md5(content).hexdigest()
    assert stored.hash_value == stored.disk_hash == hashlib.sha512(content).hexdigest()


def test_putting_in_order_needs_only_settings(settings: Settings) -> None:
    recovery.recover(settings)
    assert settings.state.joinpath("images", "store").is_dir()


def test_transfers_have_so_many_places_and_give_them_back(cloud: ImageCloud, member: Actor) -> None:
    image_id = member.make()["id"]
    cloud.app.extensions["sixstack.images.transfers"] = TransferLimiter(1)
    download = member.get(f"/images/{image_id}/file")
    waiting = member.create()["id"]
    refused = member.upload(waiting)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    assert member.get(f"/images/{image_id}/file", buffered=True).status_code == 503
    assert member.show(waiting)["status"] == "queued"
    download.close()
    assert member.upload(waiting).status_code == 204
    assert member.upload(waiting).status_code == 409
    for _ in range(2):
        assert member.get(f"/images/{waiting}/file", buffered=True).data == RAW
