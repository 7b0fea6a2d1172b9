"""Unpacking gz, xz, zst and bz2 while the bytes stream by, in bounded memory however far they expand."""

import bz2
import lzma
import zlib
from collections.abc import Iterator
from typing import Protocol

import zstandard

from app.core.errors import BadRequest

PIECE_BYTES = 1 << 20
"""The most that one step unpacks."""
WINDOW_BYTES = 256 << 20
"""The most memory a compressed file may ask for; `xz -9` needs 65 MiB, `zstd --ultra --long=27` 128 MiB."""

FREE_BYTES = 1 << 30
"""How much any file may unpack to."""
RATIO = 1000
"""How many bytes may come from each byte beyond that. gzip reaches 1032 and zstd more, with zeros only."""

MAGIC = {b"\x1f\x8b\x08": "gz", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
MAGIC_BYTES = 10


def detect_compression(head: bytes) -> str | None:
    """gz, xz, zst, bz2 or None, by the first ten bytes of a file."""
    for magic, name in MAGIC.items():
        if head.startswith(magic):
            return name
    bzip = head[:3] == b"BZh" and head[3:4] in b"123456789" and head[4:10] == b"1AY&SY"
    return "bz2" if bzip and len(head) >= MAGIC_BYTES else None


class _Codec(Protocol):
    """One compressed stream; files may hold several, one after the other."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, piece: bytes) -> Iterator[bytes]: ...


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, piece: bytes) -> Iterator[bytes]:
        out = self._stream.decompress(piece, PIECE_BYTES)
        while out:
            yield out
            out = b"" if self._stream.eof else self._stream.decompress(self._stream.unconsumed_tail, PIECE_BYTES)


class _Bounded:
    """xz and bz2, which the standard library unpacks alike."""

    def __init__(self, stream: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> None:
        self._stream = stream

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, piece: bytes) -> Iterator[bytes]:
        out = self._stream.decompress(piece, PIECE_BYTES)
        while out or not (self._stream.eof or self._stream.needs_input):
            yield out
            out = b"" if self._stream.eof else self._stream.decompress(b"", PIECE_BYTES)


class _Zstandard:
    """zstandard's object unpacks all of what it is given, so it is given little at a time: a block holds 128 KiB at
    most and needs 4 bytes at least when it is all alike."""

    STEP_BYTES = 512

    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data + self._rest

    def decompress(self, piece: bytes) -> Iterator[bytes]:
        for start in range(0, len(piece), self.STEP_BYTES):
            out = self._stream.decompress(piece[start : start + self.STEP_BYTES])
            if out:
                yield out
            if self._stream.eof:
                self._rest = piece[start + self.STEP_BYTES :]
                return


def _codec(name: str) -> _Codec:
    if name == "gz":
        return _Gzip()
    if name == "xz":
        return _Bounded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_BYTES))
    if name == "bz2":
        return _Bounded(bz2.BZ2Decompressor())
    return _Zstandard()


class Decompression:
    """Unpacks a file of one kind. Zeros after the last stream are padding, as gzip and xz allow."""

    def __init__(self, name: str, *, free_bytes: int = FREE_BYTES, ratio: int = RATIO) -> None:
        self.name = name
        self._codec = _codec(name)
        self._between_streams = False
        self._free_bytes, self._ratio = free_bytes, ratio
        self._compressed_bytes = self._decompressed_bytes = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What the next bytes unpack to, a MiB or so at a time.

        Raises BadRequest when they are damaged or unpack to more than `free_bytes` and `ratio` times what was fed.
        """
        self._compressed_bytes += len(piece)
        for unpacked in self._decompress(piece):
            self._decompressed_bytes += len(unpacked)
            if self._decompressed_bytes > max(self._free_bytes, self._ratio * self._compressed_bytes):
                raise BadRequest(
                    f"The image is refused: it unpacks to more than {self._ratio} times its size. "
                    "Upload it as qcow2, which stores no zeros."
                )
            yield unpacked

    def _decompress(self, piece: bytes) -> Iterator[bytes]:
        try:
            while piece:
                if self._between_streams:
                    piece = piece.lstrip(b"\0")
                    if not piece:
                        return
                    self._codec, self._between_streams = _codec(self.name), False
                yield from self._codec.decompress(piece)
                if not self._codec.eof:
                    return
                piece, self._between_streams = self._codec.unused_data, True
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, zstandard.ZstdError) as error:
            raise BadRequest(f"The image is a damaged {self.name} file: {error}.") from None

    def finish(self) -> None:
        """Raise BadRequest when the file ended before its content did."""
        if not self._between_streams:
            raise BadRequest(f"The image is a damaged {self.name} file: it is cut off.")
