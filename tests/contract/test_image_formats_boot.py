"""Boot of the tiny guest from images in every supported format, verified over ssh."""

import bz2
import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from openstack.connection import Connection

from tests.contract.conftest import Cloud, Key
from tests.host.support import TINY_IMAGE

FORMATS = {
    "raw": ("raw", ["-O", "raw"], None),
    "qcow2": ("qcow2", ["-O", "qcow2"], None),
    "vmdk-sparse": ("vmdk", ["-O", "vmdk", "-o", "subformat=monolithicSparse"], None),
    "vmdk-stream": ("vmdk", ["-O", "vmdk", "-o", "subformat=streamOptimized"], None),
    "vdi": ("vdi", ["-O", "vdi"], None),
    "vhd": ("vhd", ["-O", "vpc"], None),
    "vhd-fixed": ("vhd", ["-O", "vpc", "-o", "subformat=fixed,force_size=on"], None),
    "vhdx": ("vhdx", ["-O", "vhdx"], None),
    "qcow2-gz": ("qcow2", ["-O", "qcow2"], gzip.compress),
    "raw-xz": ("raw", ["-O", "raw"], lambda content: lzma.compress(content, preset=0)),
    "vmdk-zst": ("vmdk", ["-O", "vmdk"], zstandard.ZstdCompressor().compress),
    "raw-bz2": ("raw", ["-O", "raw"], lambda content: bz2.compress(content, 1)),
    "called-raw": ("raw", ["-O", "vhdx"], None),
}


def upload(connection: Connection, name: str, disk_format: str, path: Path) -> Any:
    content = path.read_bytes()
    return connection.create_image(
        name, data=content, disk_format=disk_format, container_format="bare", wait=True, allow_duplicates=True
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_boots(
    kind: str,
    cloud: Cloud,
    connection: Connection,
    boot: Callable[..., Any],
    key: Key,
    tmp_path: Path,
) -> None:
    disk_format, options, pack = FORMATS[kind]
    path = tmp_path / "disk"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", *options, TINY_IMAGE, path], check=True)
    if pack is not None:
        path.write_bytes(pack(path.read_bytes()))
    image = upload(connection, kind, disk_format, path)
    assert image.status == "active"
    assert image.size == path.stat().st_size
    server = boot(kind, image=image.id)
    assert key.ssh(server.public_v6, "hostname").strip() == kind
    assert connection.delete_server(server.id, wait=True)
    assert connection.delete_image(image.id, wait=True)


def test_an_iso_boots_as_a_cdrom_beside_an_empty_disk(
    cloud: Cloud, connection: Connection, boot: Callable[..., Any], key: Key, tmp_path: Path
) -> None:
    image = upload(connection, "iso", "iso", live_iso(tmp_path))
    server = boot("iso", image=image.id)
    assert key.ssh(server.public_v6, "hostname").strip() == "iso"
    disks = key.ssh(server.public_v6, "cat /proc/partitions")
    assert "vda" in disks
    assert "vda1" not in disks
    assert connection.delete_server(server.id, wait=True)
    assert connection.delete_image(image.id, wait=True)


INIT = """#!/bin/sh
export PATH=/sbin:/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module; do insmod "$module"; done </modules/order
exec /sbin/init
"""


def live_iso(directory: Path) -> Path:
    """Build a CD-ROM with a hard disk boot image; the tiny guest runs from its initramfs."""
    for program in ("genisoimage", "debugfs", "mcopy", "cpio"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    tree, root = directory / "tree", directory / "root"
    tree.mkdir()
    root.mkdir()
    disk = tree / "disk.img"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", TINY_IMAGE, disk], check=True)
    content = disk.read_bytes()
    first, second = (struct.unpack_from("<II", content, 446 + 16 * number + 8) for number in range(2))
    system = directory / "system.img"
    system.write_bytes(content[second[0] * 512 : sum(second) * 512])
    subprocess.run(["debugfs", "-R", f"rdump / {root}", system], check=True, capture_output=True)
    boot = f"{disk}@@{first[0] * 512}"
    subprocess.run(["mcopy", "-n", "-i", boot, "::initrd", directory / "initrd"], check=True)
    packed = gzip.decompress((directory / "initrd").read_bytes())
    subprocess.run(["cpio", "-idm", "--quiet", "modules/*"], cwd=root, input=packed, check=True)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*"))).encode()
    made = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names, check=True, capture_output=True
    )
    (directory / "initrd").write_bytes(gzip.compress(made.stdout))
    subprocess.run(["mcopy", "-o", "-i", boot, directory / "initrd", "::initrd"], check=True)
    keep_one_partition(disk, content, first)
    iso = directory / "tiny.iso"
    make = ["genisoimage", "-quiet", "-hard-disk-boot", "-b", "disk.img", "-o", iso, tree]
    subprocess.run(make, check=True, capture_output=True)
    return iso


def keep_one_partition(disk: Path, content: bytes, first: tuple[int, int]) -> None:
    """Reduce the partition table to one partition, as El Torito hard disk emulation requires.

    The BIOS derives the geometry from the end of this partition; it must match the geometry of the file system.
    """
    per_track, heads = struct.unpack_from("<HH", content, first[0] * 512 + 0x18)
    last = len(content) // 512 // (heads * per_track) - 1
    with disk.open("r+b") as file:
        file.seek(446 + 5)
        file.write(bytes([heads - 1, (last >> 2 & 0xC0) | per_track, last & 0xFF]))
        file.seek(446 + 16)
        file.write(bytes(48))
