"""What a disk image really is, found while its bytes stream by; and which ones are refused before anything opens them.

The work is oslo.utils' format inspector's, which Glance, Nova and Cinder use; it reads headers only and never seeks.
Beyond it, this refuses headers cut off, vmdk with a parent or with its data in other files, encrypted qcow2, and
differencing vhd.
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
"""It calls whatever does not parse an error; what matters is raised, and said to who sent it."""

HEAD_BYTES = 4 << 20
"""Every header lies in here, as far as there is one; what has not been recognised by then is raw."""

SIGNATURES = {
    b"QFI\xfb": "qcow2",
    b"KDMV": "vmdk",
    b"vhdxfile": "vhdx",
    b"conectix": "vhd",
    b"QED\0": "qed",
    b"LUKS\xba\xbe": "luks",
}
"""How files begin that claim to be something."""

QEMU_NAMES = {"vhd": "vpc", "gpt": "raw"}
GLANCE_NAMES = {"vpc": "vhd"}
PARTITIONED = "gpt"
RAW_KINDS = frozenset({"raw", "ami", "ari", "aki"})
"""Names under which users upload bytes that are no container at all."""
USABLE = frozenset({"raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "gpt"})


@dataclass(frozen=True, slots=True)
class DetectedFormat:
    """What the bytes are: the format in qemu's words, and the size of the disk in bytes."""

    format: str
    virtual_size: int


class Inspection:
    """Eats an image piece by piece, then says what it is. Memory stays under 2 MiB whatever comes.

    `feed` may raise BadRequest early; `finish` always decides.
    """

    def __init__(self) -> None:
        self._candidates: list[FileInspector] = [make() for name, make in ALL_FORMATS.items() if name != "raw"]
        self._head = b""
        self._tail = b""
        self._size = 0

    def feed(self, piece: bytes) -> None:
        """The next bytes. Raises BadRequest when they can already be seen to be unusable."""
        if self._size < 512:
            self._head = (self._head + piece[:512])[:512]
        self._size += len(piece)
        self._tail = piece[-512:] if len(piece) >= 512 else (self._tail + piece)[-512:]
        for candidate in list(self._candidates):
            try:
                candidate.eat_chunk(piece)
            except Exception as error:  # whatever an attacker's bytes do to a parser, it is the image's fault
                if _matches(candidate):
                    raise BadRequest(f"The image is a damaged {candidate}: {error}") from None
                self._candidates.remove(candidate)
        if self._size > HEAD_BYTES:
            self._candidates = [candidate for candidate in self._candidates if _matches(candidate)]

    def finish(self, declared: str) -> DetectedFormat:
        """What it is, given what the user calls it. Raises BadRequest when that is unsafe, damaged, ambiguous, or
        not what was declared and not provably something else."""
        for candidate in self._candidates:
            candidate.finish()
        matches = {str(candidate): candidate for candidate in self._candidates if _matches(candidate)}
        name = self._name(set(matches), declared)
        if name not in matches:
            return self._raw(name, declared)
        inspector = matches[name]
        if name not in USABLE:
            raise BadRequest(f"Images of format {name} cannot be used here.")
        if name == PARTITIONED:
            return self._raw("raw", declared)
        self._check(inspector)
        size = _virtual_size(inspector) if name != "iso" else self._size
        return DetectedFormat(QEMU_NAMES.get(name, name), size)

    def _name(self, matches: set[str], declared: str) -> str:
        """The one format of those that match. A bootable ISO also has a partition table; a hybrid one is what the
        user calls it."""
        if matches == {"iso", PARTITIONED}:
            return "raw" if declared in RAW_KINDS else "iso"
        if len(matches - {PARTITIONED}) > 1 or (PARTITIONED in matches and len(matches) > 1):
            raise BadRequest(f"The image is several formats at once ({', '.join(sorted(matches))}), which is not safe.")
        return next(iter(matches), "raw")

    def _raw(self, name: str, declared: str) -> DetectedFormat:
        """Nothing recognised: raw, unless it begins as something, or ends as a fixed vhd and is called one."""
        for signature, claimed in SIGNATURES.items():
            if self._head.startswith(signature):
                raise BadRequest(f"The image is a damaged {claimed}: its header is cut off.")
        if _is_ova(self._head):
            raise BadRequest(
                "The image is an ova, a tar archive of several files: unpack it, and upload the disk that is in it."
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
        """A raw disk with a footer after it, and runs as one."""
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
            raise BadRequest("The image is not a safe vhd: it is a difference to another file.")
        if _virtual_size(inspector) <= 0:
            raise BadRequest(f"The image is a damaged {name}: it says it holds no disk.")

    def _check_qcow2(self) -> None:
        (crypt,) = struct.unpack(">I", self._head[32:36])
        (cluster_bits,) = struct.unpack(">I", self._head[20:24])
        (l1_size,) = struct.unpack(">I", self._head[36:40])
        if crypt != 0:
            raise BadRequest("The image is an encrypted qcow2, which cannot be used here.")
        if not 9 <= cluster_bits <= 21 or l1_size > (32 << 20) // 8:
            raise BadRequest("The image is a damaged qcow2: its header is out of bounds.")

    def _check_vmdk(self, inspector: FileInspector) -> None:
        """qemu follows a parent named in the descriptor, and takes the extents from the descriptor where the
        header's capacity is nought: both lead to other files."""
        if not inspector.has_region("header"):
            raise BadRequest("The image is not a safe vmdk: it only describes data in other files.")
        capacities = [_vmdk_capacity(bytes(inspector.region("header").data))]
        if inspector.has_region("footer"):
            capacities.append(_vmdk_capacity(bytes(inspector.region("footer").data[512:])))
        if len(set(capacities)) != 1 or capacities[0] == 0:
            raise BadRequest("The image is not a safe vmdk: its header leaves its size to the descriptor.")
        text = getattr(inspector, "desc_text", "") or ""
        parent = re.search(r"^\s*parentcid\s*=\s*(\S+)", text, re.MULTILINE)
        if "parentfilenamehint" in text or (parent and parent[1] != "ffffffff"):
            raise BadRequest("The image is not a safe vmdk: it is a difference to another file.")
        extents = re.findall(r"^\s*(?:rw|rdonly|noaccess)\s+\d+\s+(\w+)", text, re.MULTILINE)
        if extents != ["sparse"]:
            raise BadRequest("The image is not a safe vmdk: its data are in other files.")


def _matches(candidate: FileInspector) -> bool:
    try:
        return candidate.format_match
    except Exception:  # too little was read to tell
        return False


def _is_ova(head: bytes) -> bool:
    """A tar archive that begins with a description of a machine, as the Open Virtualization Format has it."""
    return head[257:262] == b"ustar" and head[:100].rstrip(b"\0").lower().endswith(b".ovf")


def _virtual_size(inspector: FileInspector) -> int:
    try:
        return int(inspector.virtual_size)
    except Exception as error:  # fields whose length the file itself chooses
        raise BadRequest(f"The image is a damaged {inspector}: {error}.") from None


def _vmdk_capacity(header: bytes) -> int:
    return int(struct.unpack("<Q", header[12:20])[0])


def _vhd_footer(footer: bytes) -> tuple[int, int]:
    """Kind (2 fixed, 3 dynamic, 4 differencing) and size in bytes; zeros when it is cut off."""
    if len(footer) < 512:
        return 0, 0
    return struct.unpack(">I", footer[60:64])[0], struct.unpack(">Q", footer[48:56])[0]
