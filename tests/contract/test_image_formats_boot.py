"""The tiny guest in every format that users have, uploaded as it is, booted, and asked for its name over ssh."""

import bz2
import gzip
import lzma
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
    (tmp_path / "tree").mkdir()
    raw = tmp_path / "tree" / "disk.img"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", TINY_IMAGE, raw], check=True)
    keep_one_partition(raw)
    path = tmp_path / "tiny.iso"
    made = ["genisoimage", "-quiet", "-hard-disk-boot", "-b", "disk.img", "-o", path, tmp_path / "tree"]
    if subprocess.run(["sh", "-c", "command -v genisoimage"], capture_output=True).returncode:
        pytest.skip("genisoimage is not installed")
    subprocess.run(made, check=True, capture_output=True)
    image = upload(connection, "iso", "iso", path)
    server = boot("iso", image=image.id)
    assert key.ssh(server.public_v6, "hostname").strip() == "iso"
    disks = key.ssh(server.public_v6, "cat /proc/partitions")
    assert "sr0" in disks
    assert "vda" in disks
    assert "vda1" not in disks
    assert connection.delete_server(server.id, wait=True)
    assert connection.delete_image(image.id, wait=True)


def keep_one_partition(disk: Path) -> None:
    """A boot image on a CD-ROM may have one partition only: the tiny guest's kernel is in its first."""
    with disk.open("r+b") as file:
        file.seek(446 + 16)
        file.write(bytes(48))
