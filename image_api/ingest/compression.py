"""Streaming decompression of gz, xz, zst and bz2 in bounded memory, with a limit on the expansion ratio."""

import bz2
import lzma
import zlib
from collections.abc import Iterator
from typing import Protocol

import zstandard

from app.core.errors import BadRequest

PIECE_BYTES = 1 << 20
"""Maximum output of one decompression step."""
WINDOW_BYTES = 256 << 20
"""Maximum memory of a decompressor; `xz -9` needs 65 MiB, `zstd --ultra --long=27` 128 MiB."""

FREE_BYTES = 1 << 30
"""Decompressed size up to which `RATIO` is not enforced."""
RATIO = 1000
"""Maximum expansion ratio above `FREE_BYTES`. gzip reaches 1032 and zstd more, on zeros only."""

MAGIC = {b"\x1f\x8b\x08": "gz", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
MAGIC_BYTES = 10


def detect_compression(head: bytes) -> str | None:
    """Return gz, xz, zst or bz2 according to the first ten bytes of a file; None if it is not compressed."""
    for magic, name in MAGIC.items():
        if head.startswith(magic):
            return name
    bzip = head[:3] == b"BZh" and head[3:4] in b"123456789" and head[4:10] == b"1AY&SY"
    return "bz2" if bzip and len(head) >= MAGIC_BYTES else None


class _Codec(Protocol):
    """Decoder of one compressed stream; a file may be a concatenation of streams."""

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
    """xz and bz2; their decompressors share an interface."""

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
    """Zstandard. Its decompressor has no output limit, so the input is fed in small steps.

    A block decompresses to at most 128 KiB and takes at least 4 bytes (run-length encoded).
    """

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
    """Decompressor of a file. Zeros between and after streams are padding, which gzip and xz allow."""

    def __init__(self, name: str, *, free_bytes: int = FREE_BYTES, ratio: int = RATIO) -> None:
        self.name = name
        self._codec = _codec(name)
        self._between_streams = False
        self._free_bytes, self._ratio = free_bytes, ratio
        self._compressed_bytes = self._decompressed_bytes = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Decompress the next input; yields pieces of about 1 MiB.

        Raises BadRequest when the input is corrupt, or when the total output exceeds both `free_bytes` and `ratio`
        times the total input.
        """
        self._compressed_bytes += len(piece)
        for unpacked in self._decompress(piece):
            self._decompressed_bytes += len(unpacked)
            if self._decompressed_bytes > max(self._free_bytes, self._ratio * self._compressed_bytes):
                raise BadRequest(
                    f"The image is refused: it decompresses to more than {self._ratio} times its size. "
                    "Upload it as qcow2, which does not store zeros."
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
        """Raise BadRequest when the input ended within a stream."""
        if not self._between_streams:
            raise BadRequest(f"The image is a damaged {self.name} file: it is truncated.")
