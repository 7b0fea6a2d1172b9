"""Expansion limits of compressed uploads."""

import gzip
import lzma
import os
from collections.abc import Callable

import pytest
import zstandard

from app.core.errors import BadRequest
from image_api.ingest.compression import Decompression

MIB = 1 << 20
PACKERS = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.ZstdCompressor(level=19).compress}


@pytest.mark.parametrize(("name", "pack"), PACKERS.items())
def test_a_file_of_zeros_is_refused_once_it_expands(name: str, pack: Callable[[bytes], bytes]) -> None:
    unpacking = Decompression(name, free_bytes=4 * MIB, ratio=500)
    pieces: list[bytes] = []
    with pytest.raises(BadRequest, match="500 times"):
        pieces.extend(unpacking.feed(pack(bytes(64 * MIB))))
    assert sum(map(len, pieces)) <= 33 * MIB


@pytest.mark.parametrize(("name", "pack"), PACKERS.items())
def test_a_sparse_disk_with_content_is_unpacked(name: str, pack: Callable[[bytes], bytes]) -> None:
    disk = os.urandom(MIB // 4) + bytes(32 * MIB)
    unpacking = Decompression(name, free_bytes=4 * MIB, ratio=500)
    assert b"".join(unpacking.feed(pack(disk))) == disk
    unpacking.finish()
