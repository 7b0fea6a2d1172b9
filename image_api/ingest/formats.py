"""Disk format detection and safety checks on a stream, before any program opens the image.

Uses the format inspector of oslo.utils, as Glance, Nova and Cinder do; it reads headers only and never seeks. Also
refuses truncated headers, vmdk with a parent or with extents in other files, encrypted qcow2 and differencing vhd.
"""

import logging
import re
import struct
from dataclasses import dataclass

from oslo_utils.imageutils.format_inspector import (
    ALL_FORMATS,
    FileInspector,
    ImageFormatError,
    SafetyCheckFailed,
)

from app.core.errors import BadRequest

logging.getLogger("oslo_utils.imageutils.format_inspector").setLevel(logging.CRITICAL)
"""The inspector logs each failed parser as an error. Relevant failures are raised and returned to the client."""

HEAD_BYTES = 4 << 20
"""All supported headers lie within this prefix; candidates that do not match by then are dropped."""

SIGNATURES = {
    b"QFI\xfb": "qcow2",
    b"KDMV": "vmdk",
    b"vhdxfile": "vhdx",
    b"conectix": "vhd",
    b"QED\0": "qed",
    b"LUKS\xba\xbe": "luks",
}
"""Magic bytes at offset 0 → format. An unrecognised file with one of them has a truncated header."""

QEMU_NAMES = {"vhd": "vpc", "gpt": "raw"}
GLANCE_NAMES = {"vpc": "vhd"}
PARTITIONED = "gpt"
RAW_KINDS = frozenset({"raw", "ami", "ari", "aki"})
"""Glance disk formats without a container format of their own."""
USABLE = frozenset({"raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "gpt"})


@dataclass(frozen=True, slots=True)
class DetectedFormat:
    """Detected format, as a qemu format name, and virtual size in bytes."""

    format: str
    virtual_size: int


class Inspection:
    """Streaming format inspection with less than 2 MiB of memory. `feed` every piece, then call `finish`."""

    def __init__(self) -> None:
        self._candidates: list[FileInspector] = [make() for name, make in ALL_FORMATS.items() if name != "raw"]
        self._head = b""
        self._tail = b""
        self._size = 0

    def feed(self, piece: bytes) -> None:
        """Inspect the next bytes. Raises BadRequest as soon as the image is known to be unusable."""
        if self._size < 512:
            self._head = (self._head + piece[:512])[:512]
        self._size += len(piece)
        self._tail = piece[-512:] if len(piece) >= 512 else (self._tail + piece)[-512:]
        for candidate in list(self._candidates):
            try:
                candidate.eat_chunk(piece)
            except Exception as error:  # parsers of untrusted input may raise anything
                if _matches(candidate):
                    raise BadRequest(f"The image is a damaged {candidate}: {error}") from None
                self._candidates.remove(candidate)
        if self._size > HEAD_BYTES:
            self._candidates = [candidate for candidate in self._candidates if _matches(candidate)]

    def finish(self, declared: str) -> DetectedFormat:
        """Return the detected format, given the `disk_format` that the user declared.

        Raises BadRequest when the image is unsafe, corrupt or ambiguous, or when it is declared as a container format
        and no format is detected.
        """
        for candidate in self._candidates:
            candidate.finish()
        matches = {str(candidate): candidate for candidate in self._candidates if _matches(candidate)}
        name = self._name(set(matches), declared)
        if name not in matches:
            return self._raw(name, declared)
        inspector = matches[name]
        if name not in USABLE:
            raise BadRequest(f"Images of format {name} are not supported.")
        if name == PARTITIONED:
            return self._raw("raw", declared)
        self._check(inspector)
        size = _virtual_size(inspector) if name != "iso" else self._size
        return DetectedFormat(QEMU_NAMES.get(name, name), size)

    def _name(self, matches: set[str], declared: str) -> str:
        """Return the only matching format. Raises BadRequest when several match.

        A hybrid ISO also has a partition table; the declared format decides between iso and raw.
        """
        if matches == {"iso", PARTITIONED}:
            return "raw" if declared in RAW_KINDS else "iso"
        if len(matches - {PARTITIONED}) > 1 or (PARTITIONED in matches and len(matches) > 1):
            raise BadRequest(f"The image is several formats at once ({', '.join(sorted(matches))}), which is not safe.")
        return next(iter(matches), "raw")

    def _raw(self, name: str, declared: str) -> DetectedFormat:
        """Return raw for an unrecognised image, or a fixed vhd if it is declared as vhd and has a footer.

        Raises BadRequest when the image begins with the signature of another format, or is declared as another format.
        """
        for signature, claimed in SIGNATURES.items():
            if self._head.startswith(signature):
                raise BadRequest(f"The image is a damaged {claimed}: its header is truncated.")
        if _is_ova(self._head):
            raise BadRequest(
                "The image is an ova, a tar archive of several files: unpack it and upload the disk that it contains."
            )
        if declared == "vhd" and self._tail.startswith(b"conectix"):
            return self._fixed_vhd()
        if declared not in RAW_KINDS:
            raise BadRequest(
                f"The image is declared as {declared} but its content looks like {name}: "
                f"upload a {declared} file, or declare disk_format {name}."
            )
        if self._size == 0:
            raise BadRequest("The image is empty.")
        return DetectedFormat("raw", self._size)

    def _fixed_vhd(self) -> DetectedFormat:
        """Return raw: a fixed vhd is a raw disk followed by a footer. Raises BadRequest for an inconsistent footer."""
        kind, size = _vhd_footer(self._tail)
        if kind != 2 or size > self._size:
            raise BadRequest("The image is a damaged vhd: its footer contradicts its size.")
        return DetectedFormat("raw", self._size)

    def _check(self, inspector: FileInspector) -> None:
        name = str(inspector)
        try:
            inspector.safety_check()
        except SafetyCheckFailed as error:
            reasons = ", ".join(str(failure) for failure in error.failures.values())
            raise BadRequest(f"The image is not a safe {name}: {reasons}.") from None
        except ImageFormatError as error:
            raise BadRequest(f"The image is a damaged {name}: {error}.") from None
        if name == "qcow2":
            self._check_qcow2()
        elif name == "vmdk":
            self._check_vmdk(inspector)
        elif name == "vhd" and _vhd_footer(self._head)[0] not in (2, 3):
            raise BadRequest("The image is not a safe vhd: it is a differencing disk with a parent file.")
        if _virtual_size(inspector) <= 0:
            raise BadRequest(f"The image is a damaged {name}: its virtual size is not positive.")

    def _check_qcow2(self) -> None:
        (crypt,) = struct.unpack(">I", self._head[32:36])
        (cluster_bits,) = struct.unpack(">I", self._head[20:24])
        (l1_size,) = struct.unpack(">I", self._head[36:40])
        if crypt != 0:
            raise BadRequest("The image is an encrypted qcow2, which is not supported.")
        if not 9 <= cluster_bits <= 21 or l1_size > (32 << 20) // 8:
            raise BadRequest("The image is a damaged qcow2: its header is out of bounds.")

    def _check_vmdk(self, inspector: FileInspector) -> None:
        """Raise BadRequest for a vmdk that refers to other files.

        qemu opens the parent that the descriptor names, and takes the extents from the descriptor when the capacity in
        the header is 0.
        """
        if not inspector.has_region("header"):
            raise BadRequest("The image is not a safe vmdk: it is a descriptor of extents in other files.")
        capacities = [_vmdk_capacity(bytes(inspector.region("header").data))]
        if inspector.has_region("footer"):
            capacities.append(_vmdk_capacity(bytes(inspector.region("footer").data[512:])))
        if len(set(capacities)) != 1 or capacities[0] == 0:
            raise BadRequest("The image is not a safe vmdk: its header has no valid capacity.")
        text = getattr(inspector, "desc_text", "") or ""
        parent = re.search(r"^\s*parentcid\s*=\s*(\S+)", text, re.MULTILINE)
        if "parentfilenamehint" in text or (parent and parent[1] != "ffffffff"):
            raise BadRequest("The image is not a safe vmdk: it has a parent file.")
        extents = re.findall(r"^\s*(?:rw|rdonly|noaccess)\s+\d+\s+(\w+)", text, re.MULTILINE)
        if extents != ["sparse"]:
            raise BadRequest("The image is not a safe vmdk: its extents are in other files.")


def _matches(candidate: FileInspector) -> bool:
    try:
        return candidate.format_match
    except Exception:  # too little data to decide
        return False


def _is_ova(head: bytes) -> bool:
    """Return whether a file begins as an OVA: a tar archive with an .ovf descriptor as its first member."""
    return head[257:262] == b"ustar" and head[:100].rstrip(b"\0").lower().endswith(b".ovf")


def _virtual_size(inspector: FileInspector) -> int:
    try:
        return int(inspector.virtual_size)
    except Exception as error:  # parsers of untrusted input may raise anything
        raise BadRequest(f"The image is a damaged {inspector}: {error}.") from None


def _vmdk_capacity(header: bytes) -> int:
    return int(struct.unpack("<Q", header[12:20])[0])


def _vhd_footer(footer: bytes) -> tuple[int, int]:
    """Return the disk type (2 fixed, 3 dynamic, 4 differencing) and size in bytes; zeros when it is truncated."""
    if len(footer) < 512:
        return 0, 0
    return struct.unpack(">I", footer[60:64])[0], struct.unpack(">Q", footer[48:56])[0]
