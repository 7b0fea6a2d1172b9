"""Image format detection: formats as qemu-img writes them, and hostile files. No file is opened by qemu."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import random
import re
import struct
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from app.core.errors import BadRequest
from image_api.ingest import compression
from image_api.ingest.compression import Decompression, detect_compression
from image_api.ingest.formats import DetectedFormat, Inspection

MIB = 1 << 20
SIZE = 8 * MIB


def inspect(content: bytes, declared: str, step: int = 64 << 10) -> DetectedFormat:
    inspection = Inspection()
    for start in range(0, len(content), step):
        inspection.feed(content[start : start + step])
    return inspection.finish(declared)


def partitioned(size: int = SIZE) -> bytes:
    """Return a raw disk with an MBR of one partition and random content."""
    disk = bytearray(size)
    disk[446:462] = struct.pack("<B3BB3BII", 0x80, 0, 2, 0, 0x83, 0, 0, 0, 1, size // 512 - 1)
    disk[510:512] = b"\x55\xaa"
    disk[MIB : MIB + 4096] = os.urandom(4096)
    return bytes(disk)


@pytest.fixture
def qemu_img(tmp_path: Path) -> Callable[..., bytes]:
    """Run qemu-img in a directory with `disk.raw` and return the content of the result."""
    (tmp_path / "disk.raw").write_bytes(partitioned())

    def run(*arguments: str, result: str = "out") -> bytes:
        subprocess.run(["qemu-img", *arguments], cwd=tmp_path, check=True, capture_output=True)
        return (tmp_path / result).read_bytes()

    return run


CONVERSIONS = [
    ("qcow2", [], "qcow2", "qcow2"),
    ("qcow2", ["-c"], "qcow2", "qcow2"),
    ("qcow2", ["-o", "compat=0.10"], "qcow2", "qcow2"),
    ("qcow2", ["-o", "compression_type=zstd", "-c"], "qcow2", "qcow2"),
    ("raw", [], "raw", "raw"),
    ("vmdk", ["-o", "subformat=monolithicSparse"], "vmdk", "vmdk"),
    ("vmdk", ["-o", "subformat=streamOptimized"], "vmdk", "vmdk"),
    ("vdi", [], "vdi", "vdi"),
    ("vpc", [], "vhd", "vpc"),
    ("vpc", ["-o", "subformat=fixed,force_size=on"], "vhd", "raw"),
    ("vhdx", [], "vhdx", "vhdx"),
]


@pytest.mark.parametrize(("driver", "options", "declared", "truth"), CONVERSIONS)
@pytest.mark.parametrize("step", [4 << 10, 1 << 20])
def test_every_format_is_recognised(
    qemu_img: Callable[..., bytes], driver: str, options: list[str], declared: str, truth: str, step: int
) -> None:
    content = qemu_img("convert", "-f", "raw", "-O", driver, *options, "disk.raw", "out")
    found = inspect(content, declared, step)
    assert found.format == truth
    assert SIZE <= found.virtual_size < SIZE + MIB  # vhd rounds up to whole cylinders


@pytest.mark.parametrize("driver", ["qcow2", "vmdk", "vdi", "vhdx"])
def test_detected_format_overrides_the_declared_one(qemu_img: Callable[..., bytes], driver: str) -> None:
    content = qemu_img("convert", "-f", "raw", "-O", driver, "disk.raw", "out")
    for declared in ("raw", "qcow2", "vmdk", "iso"):
        assert inspect(content, declared).format == driver


@pytest.mark.parametrize("declared", ["raw", "vmdk"])
def test_ova_is_refused_with_instructions(declared: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as ova:
        for name, size in (("machine.ovf", 100), ("machine-disk1.vmdk", MIB)):
            member = tarfile.TarInfo(name)
            member.size = size
            ova.addfile(member, io.BytesIO(bytes(size)))
    with pytest.raises(BadRequest, match="unpack it and upload the disk"):
        inspect(archive.getvalue(), declared)


@pytest.mark.parametrize("declared", ["qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "ploop"])
def test_raw_must_be_declared(declared: str) -> None:
    with pytest.raises(BadRequest, match=rf"{declared}.*raw"):
        inspect(partitioned(), declared)


def iso(size: int = MIB) -> bytes:
    content = bytearray(size)
    content[0x8000:0x8006] = b"\x01CD001"
    content[0x8000 + 80 : 0x8000 + 88] = struct.pack("<L", size // 2048) + struct.pack(">L", size // 2048)
    content[0x8000 + 128 : 0x8000 + 132] = struct.pack("<H", 2048) + struct.pack(">H", 2048)
    return bytes(content)


def test_isos_plain_and_hybrid() -> None:
    plain = iso()
    hybrid = partitioned(SIZE)[:0x8000] + plain[0x8000:]
    assert inspect(plain, "iso") == DetectedFormat("iso", MIB)
    assert inspect(plain, "raw").format == "iso"
    assert inspect(hybrid, "iso").format == "iso"
    assert inspect(hybrid, "raw").format == "raw"


def vmdk(text: str, *, capacity: int = 2048) -> bytes:
    """Return a sparse vmdk with this descriptor."""
    header = struct.pack("<4sIIQQQQIQQ", b"KDMV", 1, 3, capacity, 128, 1, 20, 512, 21, 26).ljust(512, b"\0")
    return header + text.encode().ljust(20 * 512, b"\0") + bytes(256 << 10)


GOOD_DESCRIPTOR = (
    "# Disk DescriptorFile\nversion=1\nCID=abcdef01\nparentCID=ffffffff\n"
    'createType="monolithicSparse"\n\nRW 2048 SPARSE "disk.vmdk"\n\nddb.adapterType = "ide"\n'
)


def test_a_vmdk_made_by_hand_is_fine() -> None:
    assert inspect(vmdk(GOOD_DESCRIPTOR), "vmdk") == DetectedFormat("vmdk", 2048 * 512)


def vmdk_corpus() -> Iterator[tuple[str, bytes, str]]:
    swap = GOOD_DESCRIPTOR.replace
    yield "extent elsewhere", vmdk(swap('"disk.vmdk"', '"/etc/shadow"')), "safe vmdk"
    yield "flat extent", vmdk(swap("SPARSE", "FLAT") + "RW 1 FLAT passwd 0\n"), "safe vmdk"
    yield "two extents", vmdk(GOOD_DESCRIPTOR + 'RW 2048 SPARSE "other.vmdk"\n'), "safe vmdk"
    yield "flat type", vmdk(swap("monolithicSparse", "monolithicFlat")), "safe vmdk"
    yield "custom type", vmdk(swap("monolithicSparse", "custom")), "safe vmdk"
    yield "parent", vmdk(swap("ffffffff", "12345678") + 'parentFileNameHint="/etc/shadow"\n'), "safe vmdk"
    yield "hint only", vmdk(GOOD_DESCRIPTOR + 'parentFileNameHint="/etc/shadow"\n'), "safe vmdk"
    yield "size left to the descriptor", vmdk(GOOD_DESCRIPTOR, capacity=0), "vmdk"
    yield "descriptor only", GOOD_DESCRIPTOR.encode(), "vmdk"
    flat = GOOD_DESCRIPTOR.replace("monolithicSparse", "monolithicFlat").replace("SPARSE", "FLAT")
    yield "descriptor of a flat file", flat.replace('disk.vmdk"', '/etc/shadow" 0').encode(), "vmdk"
    yield "cut off", vmdk(GOOD_DESCRIPTOR)[:700], "vmdk"
    yield "header only", vmdk(GOOD_DESCRIPTOR)[:60], "vmdk"
    elsewhere = bytearray(vmdk(GOOD_DESCRIPTOR))
    elsewhere[28:36] = struct.pack("<Q", 1 << 30)
    yield "descriptor far away", bytes(elsewhere), "vmdk"


@pytest.mark.parametrize(("content", "said"), [pytest.param(c, s, id=n) for n, c, s in vmdk_corpus()])
@pytest.mark.parametrize("declared", ["vmdk", "raw"])
def test_vmdk_that_references_other_files_is_refused(content: bytes, said: str, declared: str) -> None:
    if declared == "raw" and not content.startswith(b"KDMV") and b"Flat" not in content and b"Sparse" not in content:
        pytest.skip("text that no one calls a vmdk is just text")
    with pytest.raises(BadRequest, match=said):
        inspect(content, declared)


def qcow2_header(**changes: tuple[int, str, int]) -> bytes:
    fields = {
        "magic": (0, ">4s", b"QFI\xfb"),
        "version": (4, ">I", 3),
        "cluster_bits": (20, ">I", 16),
        "size": (24, ">Q", SIZE),
        "l1_size": (36, ">I", 1),
        "l1_offset": (40, ">Q", 0x30000),
        "refcount_offset": (48, ">Q", 0x10000),
        "refcount_clusters": (56, ">I", 1),
        "refcount_order": (96, ">I", 4),
        "header_length": (100, ">I", 104),
        **changes,
    }
    content = bytearray(4 << 16)
    for offset, form, value in fields.values():
        struct.pack_into(form, content, offset, value)
    return bytes(content)


def test_a_qcow2_made_by_hand_is_fine() -> None:
    assert inspect(qcow2_header(), "qcow2") == DetectedFormat("qcow2", SIZE)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(qcow2_header(backing=(8, ">Q", 512), length=(16, ">I", 11)), id="backing file"),
        pytest.param(qcow2_header(features=(72, ">Q", 4)), id="external data file"),
        pytest.param(qcow2_header(features=(72, ">Q", 1 << 40)), id="unknown features"),
        pytest.param(qcow2_header(version=(4, ">I", 1)), id="version 1"),
        pytest.param(qcow2_header(version=(4, ">I", 9)), id="version 9"),
        pytest.param(qcow2_header(crypt=(32, ">I", 2)), id="encrypted"),
        pytest.param(qcow2_header(size=(24, ">Q", 0)), id="no size"),
        pytest.param(qcow2_header(cluster_bits=(20, ">I", 63)), id="mad clusters"),
        pytest.param(qcow2_header(l1_size=(36, ">I", 0xFFFFFFFF)), id="mad table"),
        pytest.param(qcow2_header()[:100], id="cut off"),
        pytest.param(qcow2_header()[:4], id="magic only"),
        pytest.param(qcow2_header()[:0x8000] + iso()[0x8000:], id="qcow2 and iso at once"),
        pytest.param(b"QED\0" + bytes(4096), id="qed"),
        pytest.param(b"LUKS\xba\xbe\0\1" + bytes(4096), id="luks"),
        pytest.param(b"vhdxfile" + bytes(512 << 10), id="vhdx without regions"),
        pytest.param(b"vhdxfile" + bytes(100), id="vhdx cut off"),
        pytest.param(b"conectix" + bytes(100), id="vhd cut off"),
        pytest.param(b"conectix".ljust(60, b"\0") + struct.pack(">I", 4) + bytes(4096), id="vhd differencing"),
        pytest.param(b"", id="empty"),
    ],
)
@pytest.mark.parametrize("declared", ["qcow2", "raw"])
@pytest.mark.parametrize("step", [1, 4096])
def test_hostile_files_are_refused(content: bytes, declared: str, step: int) -> None:
    if step == 1 and len(content) > 8192:
        step = 1000
    with pytest.raises(BadRequest):
        inspect(content, declared, step)


def test_a_backing_file_made_by_qemu_is_refused(qemu_img: Callable[..., bytes]) -> None:
    content = qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", "disk.raw", "out")
    with pytest.raises(BadRequest, match="backing file"):
        inspect(content, "qcow2")


def test_a_data_file_made_by_qemu_is_refused(qemu_img: Callable[..., bytes]) -> None:
    content = qemu_img("create", "-f", "qcow2", "-o", "data_file=elsewhere.raw", "out", "8M")
    with pytest.raises(BadRequest, match="data_file"):
        inspect(content, "qcow2")


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
    "bz2": bz2.compress,
}


def unpacked(kind: str, packed: bytes, step: int) -> bytes:
    unpacking = Decompression(kind)
    pieces = [out for start in range(0, len(packed), step) for out in unpacking.feed(packed[start : start + step])]
    unpacking.finish()
    assert max(map(len, pieces)) <= 128 * unpacking_bound(kind)
    return b"".join(pieces)


def unpacking_bound(kind: str) -> int:
    return 128 << 10 if kind == "zst" else compression.PIECE_BYTES >> 7


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_every_compression_is_detected_and_decompressed(kind: str, step: int) -> None:
    content = os.urandom(MIB) + bytes(3 * MIB) + b"end"
    packed = PACKERS[kind](content)
    assert detect_compression(packed[:10]) == kind
    assert unpacked(kind, packed, step) == content
    assert unpacked(kind, packed + PACKERS[kind](b"more"), step) == content + b"more"


@pytest.mark.parametrize("kind", PACKERS)
def test_damaged_or_truncated_files_are_refused(kind: str) -> None:
    packed = PACKERS[kind](os.urandom(MIB))
    with pytest.raises(BadRequest, match="truncated"):
        unpacked(kind, packed[:-20], 4096)
    broken = packed[: len(packed) // 2] + bytes(64) + packed[len(packed) // 2 + 64 :]
    with pytest.raises(BadRequest, match=re.escape(f"damaged {kind}")):
        unpacked(kind, broken, 4096)


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_padding_after_the_end_is_allowed(kind: str) -> None:
    assert unpacked(kind, PACKERS[kind](b"content") + bytes(512), 100) == b"content"


def test_disks_do_not_look_compressed() -> None:
    assert detect_compression(partitioned()[:10]) is None
    assert detect_compression(b"BZh9") is None


def test_vhdx_with_a_truncated_size_field_is_refused(qemu_img: Callable[..., bytes]) -> None:
    content = bytearray(qemu_img("convert", "-f", "raw", "-O", "vhdx", "disk.raw", "out"))
    entry = content.index(uuid.UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8").bytes_le)
    struct.pack_into("<I", content, entry + 20, 4)
    with pytest.raises(BadRequest, match="damaged vhdx"):
        inspect(bytes(content), "vhdx")


@pytest.mark.parametrize("driver", ["qcow2", "vmdk", "vdi", "vpc", "vhdx"])
def test_damaged_images_are_refused_or_recognised(qemu_img: Callable[..., bytes], driver: str) -> None:
    good = qemu_img("convert", "-f", "raw", "-O", driver, "disk.raw", "out")[: 3 * MIB]
    chance = random.Random(20)
    interesting = [0, 8, 16, 20, 24, 28, 36, 40, 60, 64, 72, 368, 512, 520, 0x30000, 0x30008, 0x200000, 0x200010]
    for _ in range(300):
        content = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            at = chance.choice(interesting) + chance.randint(0, 64)
            if at < len(content):
                content[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randint(0, 255)])
        cut = chance.choice([len(content), chance.randint(1, len(content))])
        with contextlib.suppress(BadRequest):
            assert inspect(bytes(content[:cut]), chance.choice(["raw", "qcow2", driver]), 1 << 20)
