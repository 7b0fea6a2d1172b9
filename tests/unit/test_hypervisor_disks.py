"""Base images and overlays: validation, caching, eviction."""

import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hypervisor.api.errors import ImageUnusable
from hypervisor.api.spec import DiskSpec, ImageRef
from hypervisor.base.paths import MachinePaths
from hypervisor.storage.disks import Disks

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
MIB = 1 << 20


class Store:
    """Serves one file and counts requests."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def local_path(self, image: ImageRef) -> Path:
        self.asked += 1
        assert self.may_answer.wait(10)
        return self.path


@pytest.fixture
def paths(tmp_path: Path) -> MachinePaths:
    directory = tmp_path / "machine"
    directory.mkdir()
    return MachinePaths(directory)


def qemu_img(*words: str) -> str:
    return subprocess.run(["qemu-img", *words], check=True, capture_output=True, text=True).stdout


def make_image(tmp_path: Path, disk_format: str, *options: str) -> Path:
    raw, path = tmp_path / "source.raw", tmp_path / f"image.{disk_format}"
    raw.write_bytes(b"guest" * 1000 + bytes(3 * MIB - 5000))
    qemu_img("convert", "-f", "raw", "-O", disk_format, *options, str(raw), str(path))
    return path


def ref(path: Path, disk_format: str, **more: object) -> ImageRef:
    fields = {"id": "the-image", "disk_format": disk_format, "size_bytes": path.stat().st_size}
    return ImageRef.model_validate({**fields, "virtual_size_bytes": 3 * MIB, **more})


@pytest.mark.parametrize("disk_format", ["raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx"])
def test_every_common_format_becomes_a_disk(tmp_path: Path, paths: MachinePaths, disk_format: str) -> None:
    image = make_image(tmp_path, disk_format)
    disks = Disks(tmp_path / "bases", Store(image))
    (disk,) = disks.ensure(DiskSpec(size_gib=1, image=ref(image, disk_format)), paths)
    assert disk.format == "qcow2"
    seen = json.loads(qemu_img("info", "--output=json", str(disk.path)))
    assert seen["virtual-size"] == 1 << 30
    flat = tmp_path / "flat.raw"
    qemu_img("convert", "-f", "qcow2", "-O", "raw", str(disk.path), str(flat))
    with flat.open("rb") as file:
        assert file.read(10) == b"guestguest"


def test_size_zero_means_the_images_own_size(tmp_path: Path, paths: MachinePaths) -> None:
    image = make_image(tmp_path, "qcow2")
    (disk,) = Disks(tmp_path / "bases", Store(image)).ensure(DiskSpec(image=ref(image, "qcow2")), paths)
    assert json.loads(qemu_img("info", "--output=json", str(disk.path)))["virtual-size"] == 3 * MIB


def test_a_disk_smaller_than_its_image_is_refused(tmp_path: Path, paths: MachinePaths) -> None:
    image = make_image(tmp_path, "qcow2")
    big = ref(image, "qcow2", virtual_size_bytes=5 << 30)
    with pytest.raises(ImageUnusable, match="4 GiB"):
        Disks(tmp_path / "bases", Store(image)).ensure(DiskSpec(size_gib=4, image=big), paths)


def test_an_existing_disk_is_kept(tmp_path: Path, paths: MachinePaths) -> None:
    image = make_image(tmp_path, "qcow2")
    disks = Disks(tmp_path / "bases", Store(image))
    spec = DiskSpec(size_gib=1, image=ref(image, "qcow2"))
    (disk,) = disks.ensure(spec, paths)
    inode = disk.path.stat().st_ino
    (again,) = disks.ensure(spec, paths)
    assert again.path.stat().st_ino == inode


def test_an_iso_becomes_a_cdrom_beside_a_blank_disk(tmp_path: Path, paths: MachinePaths) -> None:
    image = tmp_path / "install.iso"
    image.write_bytes(bytes(MIB))
    disk, cdrom = Disks(tmp_path / "bases", Store(image)).ensure(
        DiskSpec(size_gib=1, image=ref(image, "iso", virtual_size_bytes=MIB)), paths
    )
    assert (disk.base, disk.cdrom) == (None, False)
    assert (cdrom.cdrom, cdrom.read_only, cdrom.format) == (True, True, "raw")


def test_a_disk_without_an_image_is_blank(tmp_path: Path, paths: MachinePaths) -> None:
    (disk,) = Disks(tmp_path / "bases", Store(tmp_path)).ensure(DiskSpec(name="swap", size_gib=2), paths)
    assert disk.path.name == "swap.qcow2"
    assert json.loads(qemu_img("info", "--output=json", str(disk.path)))["virtual-size"] == 2 << 30


def test_a_file_of_the_host_cannot_be_read_through_a_backing_file(tmp_path: Path, paths: MachinePaths) -> None:
    secret, image = tmp_path / "secret", tmp_path / "image.qcow2"
    secret.write_bytes(bytes(MIB))
    qemu_img("create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(image))
    with pytest.raises(ImageUnusable, match="backing"):
        Disks(tmp_path / "bases", Store(image)).ensure(DiskSpec(size_gib=1, image=ref(image, "qcow2")), paths)
    assert list((tmp_path / "bases").iterdir()) == []
    assert list(paths.directory.iterdir()) == []


def test_a_file_of_the_host_cannot_be_read_through_a_data_file(tmp_path: Path, paths: MachinePaths) -> None:
    image = tmp_path / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path}/data", str(image), "1M")
    with pytest.raises(ImageUnusable, match="data"):
        Disks(tmp_path / "bases", Store(image)).ensure(DiskSpec(size_gib=1, image=ref(image, "qcow2")), paths)


def test_a_file_of_the_host_cannot_be_read_through_a_vmdk_extent(tmp_path: Path, paths: MachinePaths) -> None:
    image = tmp_path / "image.vmdk"
    image.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        'createType="monolithicFlat"\n\nRW 2048 FLAT "/etc/passwd" 0\n' + " " * 2048
    )
    with pytest.raises(ImageUnusable):
        Disks(tmp_path / "bases", Store(image)).ensure(DiskSpec(size_gib=1, image=ref(image, "vmdk")), paths)


def test_bytes_that_are_not_the_announced_ones_are_refused(tmp_path: Path, paths: MachinePaths) -> None:
    image = make_image(tmp_path, "raw")
    right = hashlib.sha512(image.read_bytes()).hexdigest()
    disks = Disks(tmp_path / "bases", Store(image))
    with pytest.raises(ImageUnusable, match="SHA-512"):
        disks.ensure(DiskSpec(size_gib=1, image=ref(image, "raw", sha512="0" * 128)), paths)
    with pytest.raises(ImageUnusable, match="bytes long"):
        disks.ensure(DiskSpec(size_gib=1, image=ref(image, "raw", size_bytes=7)), paths)
    with pytest.raises(ImageUnusable, match="not a valid qcow2"):
        disks.ensure(DiskSpec(size_gib=1, image=ref(image, "qcow2")), paths)
    disks.ensure(DiskSpec(size_gib=1, image=ref(image, "raw", sha512=right)), paths)


def test_an_unknown_format_is_refused(tmp_path: Path, paths: MachinePaths) -> None:
    image = make_image(tmp_path, "raw")
    with pytest.raises(ImageUnusable, match="aki"):
        Disks(tmp_path / "bases", Store(image)).ensure(DiskSpec(size_gib=1, image=ref(image, "aki")), paths)


def test_starts_from_one_image_share_one_preparation(tmp_path: Path) -> None:
    image = make_image(tmp_path, "vmdk")
    store = Store(image)
    store.may_answer.clear()
    disks = Disks(tmp_path / "bases", store)
    with ThreadPoolExecutor(5) as pool:
        prepared = [pool.submit(disks.ensure_base, ref(image, "vmdk")) for _ in range(5)]
        store.may_answer.set()
        assert len({base.result() for base in prepared}) == 1
    assert store.asked == 1


def test_only_unneeded_bases_are_evicted(tmp_path: Path) -> None:
    image = make_image(tmp_path, "raw")
    disks = Disks(tmp_path / "bases", Store(image))
    kept = disks.ensure_base(ref(image, "raw", id="kept"))
    gone = disks.ensure_base(ref(image, "raw", id="gone"))
    disks.evict(lambda image_id: image_id == "kept")
    assert kept.path.exists()
    assert not gone.path.exists()
    assert image.exists(), "the image store keeps its own file"


def test_unused_bases_beyond_the_limit_are_evicted_oldest_first(tmp_path: Path) -> None:
    image = make_image(tmp_path, "raw")
    store = Store(image)
    disks = Disks(tmp_path / "bases", store)
    images = [ref(image, "raw", id=name) for name in ("first", "second", "third")]
    bases = []
    for each in images:
        store.path = tmp_path / each.id
        shutil.copyfile(image, store.path)
        bases.append(disks.ensure_base(each))
    for age, base in zip((30, 20, 10), bases, strict=True):
        os.utime(base.path, (time.time() - age,) * 2)
    disks.ensure_base(images[0])
    torn = tmp_path / "bases" / ".fourth.raw"
    torn.write_bytes(b"what a process that died had begun")
    size = bases[0].path.stat().st_blocks * 512
    disks.evict(lambda image_id: image_id == "second", 2 * size)
    assert [base.path.exists() for base in bases] == [True, True, True]
    assert not torn.exists()
    disks.evict(lambda image_id: image_id == "second", 2 * size - 1)
    assert [base.path.exists() for base in bases] == [True, True, False]
    disks.evict(lambda _: False)
    assert list((tmp_path / "bases").iterdir()) == []


def test_blank_disks_are_formatted(tmp_path: Path, paths: MachinePaths) -> None:
    disks = Disks(tmp_path / "bases", Store(tmp_path))
    swap = DiskSpec(name="swap", size_mib=4, filesystem="swap")
    ephemeral = DiskSpec(name="ephemeral1", size_mib=16, filesystem="ext4")
    whole = {}
    for disk in (swap, ephemeral):
        (made,) = disks.ensure(disk, paths)
        assert (made.format, made.base) == ("qcow2", None)
        assert made.path.stat().st_mode & 0o777 == 0o600
        qemu_img("convert", "-f", "qcow2", "-O", "raw", str(made.path), str(tmp_path / disk.name))
        whole[disk.name] = (tmp_path / disk.name).read_bytes()
        assert len(whole[disk.name]) == disk.size_mib * MIB
    assert whole["swap"][4086:4096] == b"SWAPSPACE2"
    assert whole["ephemeral1"][1080:1082] == b"\x53\xef"
    assert whole["ephemeral1"][1144:1160].rstrip(b"\0") == b"ephemeral1"
    assert sorted(path.name for path in paths.directory.iterdir()) == ["ephemeral1.qcow2", "swap.qcow2"]
