"""What two hosts must know of each other to move a machine: documents that pass through the control plane.

    source  ── Offer ──▶ control plane ── Plan ──▶ destination      what runs, and how it was started
    source ◀── Plan, Landing ── control plane ◀── Landing ──┘       where it is awaited
    source  ── Sent ──▶ control plane ── Sent ──▶ destination       the guest has left; it may be shown to the world

A host believes an offer only where nobody but this machine's own guest can come to harm; the rest is in the
MachineSpec, which the control plane makes.
"""

import base64
import binascii
import lzma
from ipaddress import IPv6Address
from typing import Annotated, Literal

from pydantic import Field

from hypervisor.api.errors import HypervisorError
from hypervisor.api.spec import Document

LARGEST_FILE = 16 << 20
CONSOLE_BYTES = 256 << 10
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class OfferedDisk(Document):
    """A disk of the machine as it is; `alone` when it stands on no image."""

    name: Name
    size_bytes: Annotated[int, Field(gt=0)]
    alone: bool


class MigrationOffer(Document):
    """A machine as its host has it. What is only known of a running one is None for one that is moved cold.

    `config_drive` is packed (`pack`); `slots` says which port's interface is plugged in where,
    `consoles` that there is a screen.
    """

    disks: tuple[OfferedDisk, ...]
    accelerator: Literal["kvm", "tcg"] | None = None
    machine_type: Name | None = None
    processor: str = ""
    generation_id: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")] | None = None
    slots: dict[str, Annotated[int, Field(ge=0, lt=8)]] = {}
    config_drive: str | None = None
    consoles: bool = False


class MigrationPlan(Document):
    """One migration. `key` is 64 hex digits, used once: only who knows it can send or receive disks and memory.

    `live`: the guest goes on; otherwise it is stopped, and only its disks are sent. `paused`: it is, and stays so.
    `start`: after a cold migration it is started again.
    """

    id: str
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    live: bool
    paused: bool = False
    start: bool = True
    offer: MigrationOffer | None = None


class MigrationTarget(Document):
    """Where a destination waits. `whole` are disks that have to be sent with the image they stand on."""

    address: IPv6Address
    disk_port: Port
    memory_port: Port | None = None
    whole: frozenset[str] = frozenset()


class TransferResult(Document):
    """The guest has left. `console` is what its serial console showed before, packed."""

    console: str | None = None


class MigrationProgress(Document):
    """How far a migration is, in bytes. Memory is sent more than once where the guest goes on writing to it."""

    memory_total: int = 0
    memory_processed: int = 0
    memory_remaining: int = 0
    disk_total: int = 0
    disk_processed: int = 0
    disk_remaining: int = 0


def pack(content: bytes) -> str:
    """A file as it travels in a document."""
    return base64.b64encode(lzma.compress(content, preset=1)).decode()


def unpack(packed: str) -> bytes:
    """The file again. Raises HypervisorError when it is none, or larger than any that is sent."""
    try:
        reader = lzma.LZMADecompressor(memlimit=128 << 20)
        content = reader.decompress(base64.b64decode(packed, validate=True), LARGEST_FILE)
    except (binascii.Error, lzma.LZMAError) as error:
        raise HypervisorError("A file of the machine has not arrived as it was sent.") from error
    if not reader.eof:
        raise HypervisorError("A file of the machine is larger than any that is moved.")
    return content
