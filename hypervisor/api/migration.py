"""Documents that migration source and target exchange through the control plane.

    source  ── Offer ──▶ control plane ── Plan ──▶ target             what runs, and how it was started
    source ◀── Plan, Target ── control plane ◀── Target ──┘           where the target listens
    source  ── TransferResult ──▶ control plane ── TransferResult ──▶ target    the transfer is complete

A target host trusts an offer only in fields that affect no other guest than the migrated one. Everything else comes
from the MachineSpec, which the control plane creates.
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
    """A disk of the machine. `alone`: it has no backing image."""

    name: Name
    size_bytes: Annotated[int, Field(gt=0)]
    alone: bool


class MigrationOffer(Document):
    """The state of a machine on the source host. Fields of running machines are None in a cold migration.

    `config_drive` is packed (`pack`); `slots` maps port ids to PCIe slots; `consoles`: the machine has a graphical
    console.
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
    """The parameters of one migration. `key` is a one-time TLS-PSK of 64 hex digits that protects disks and memory.

    `live`: the guest keeps running; otherwise it is stopped and only its disks are sent. `paused`: the guest is paused
    and stays paused. `start`: start the guest after a cold migration.
    """

    id: str
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    live: bool
    paused: bool = False
    start: bool = True
    offer: MigrationOffer | None = None


class MigrationTarget(Document):
    """Where the target listens. `whole`: disks to send together with their backing image."""

    address: IPv6Address
    disk_port: Port
    memory_port: Port | None = None
    whole: frozenset[str] = frozenset()


class TransferResult(Document):
    """The result of a completed transfer. `console` is the packed log of the serial console on the source."""

    console: str | None = None


class MigrationProgress(Document):
    """Progress of a migration in bytes. Memory that the guest dirties is sent repeatedly."""

    memory_total: int = 0
    memory_processed: int = 0
    memory_remaining: int = 0
    disk_total: int = 0
    disk_processed: int = 0
    disk_remaining: int = 0


def pack(content: bytes) -> str:
    """Compress and base64-encode a file for a document."""
    return base64.b64encode(lzma.compress(content, preset=1)).decode()


def unpack(packed: str) -> bytes:
    """Decode the output of `pack`. Raises HypervisorError for corrupt input or content above LARGEST_FILE bytes."""
    try:
        reader = lzma.LZMADecompressor(memlimit=128 << 20)
        content = reader.decompress(base64.b64decode(packed, validate=True), LARGEST_FILE)
    except (binascii.Error, lzma.LZMAError) as error:
        raise HypervisorError("A file of the machine has not arrived as it was sent.") from error
    if not reader.eof:
        raise HypervisorError("A file of the machine is larger than any that is moved.")
    return content
