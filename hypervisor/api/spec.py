"""What a host is told and what it answers: MachineSpec goes down, MachineReport comes up.

A MachineSpec is complete: whoever holds one can run the machine without asking anybody. It is frozen and
serialisable (`model_dump_json`), is kept beside the machine, and names images by id and hash, never by path.
"""

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from hypervisor.api.addresses import check_routable, check_unicast, refuse_scope


def _address(value: IPv6Interface) -> IPv6Interface:
    refuse_scope(value)
    check_routable(value.ip)
    return value


def _gateway(value: IPv6Address) -> IPv6Address:
    check_unicast(value)
    return value


def _dns_server(value: IPv6Address) -> IPv6Address:
    check_routable(value)
    return value


def _prefix(value: IPv6Network) -> IPv6Network:
    refuse_scope(value)
    return value


Mac = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]
DomainName = Annotated[
    str, StringConstraints(max_length=255, pattern=r"^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?$")
]
GuestAddress = Annotated[IPv6Interface, AfterValidator(_address)]
Gateway = Annotated[IPv6Address, AfterValidator(_gateway)]
DnsServer = Annotated[IPv6Address, AfterValidator(_dns_server)]
Prefix = Annotated[IPv6Network, AfterValidator(_prefix)]


class Document(BaseModel):
    """A frozen value that travels between the control plane and a host; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageRef(Document):
    """An image as a host needs to know it: enough to fetch, verify and convert it.

    `disk_format` is what the bytes really are (qcow2, raw, vmdk, vdi, vpc, vhdx, iso), as detected by the image API.
    `sha512` is of the stored bytes, None for an image that is not hashed.
    """

    id: str
    disk_format: str
    size_bytes: int
    virtual_size_bytes: int
    sha512: str | None = None


class DiskSpec(Document):
    """A disk of the machine. Without an image it is blank. `size_gib` 0 means the image's own size, or `size_mib` of a
    blank one that is not made of whole GiB. A blank one may have a `filesystem`: swap, or ext4 that is labelled with
    its name."""

    name: str = "root"
    size_gib: int = 0
    size_mib: int = 0
    image: ImageRef | None = None
    cdrom: bool = False
    filesystem: Literal["ext4", "swap"] | None = None


class Rate(Document):
    """How fast packets may pass: `average` and `peak` in bytes a second, `burst` in bytes. `peak` 0 means the average,
    or whatever the burst allows; `burst` 0 means as little as works."""

    average: int
    peak: int = 0
    burst: int = 0


class NicSpec(Document):
    """A network interface on one segment. Addresses carry the prefix length of their subnet. `inbound` is what reaches
    the guest, `outbound` what it sends; None is as fast as it goes. `allowed` are MACs and prefixes that the guest may
    send from beside its own, `ipv4_address` is mapped to the first address by NAT64, and an `isolated` guest does not
    reach others on its segment.

    Hosts do not trust the control plane: what cannot be an address, MAC or domain name is refused here, as it would
    become part of configuration files and packet filter rules."""

    port_id: Annotated[str, StringConstraints(pattern="^[A-Za-z0-9-]+$")]
    network_id: str
    vni: int
    mac: Mac
    mtu: int
    addresses: tuple[GuestAddress, ...] = ()
    gateway: Gateway | None = None
    dns_servers: tuple[DnsServer, ...] = ()
    dns_search: tuple[DomainName, ...] = ()
    inbound: Rate | None = None
    outbound: Rate | None = None
    tag: str | None = None
    """What the user calls this interface, for the guest to know."""
    allowed: tuple[tuple[Mac, Prefix], ...] = ()
    ipv4_address: IPv4Address | None = None
    isolated: bool = False
    routes: tuple[tuple[Prefix, Gateway], ...] = ()
    """Destinations that the guest reaches by these addresses of its subnet, such as another guest that routes."""
    prefix_by_user: bool = False
    """The prefix is a ULA that a user has chosen: a host refuses it where it uses that prefix itself."""


class Topology(Document):
    """How the guest sees its vCPUs: sockets times cores times threads are as many."""

    sockets: int
    cores: int
    threads: int


class CpuLimits(Document):
    """A machine's part of its host's processors. `shares` is a weight beside other machines, 1024 is usual. In each
    `period_us` every vCPU runs for `quota_us` at most, all together in whatever way. None is no limit."""

    shares: int | None = None
    period_us: int | None = None
    quota_us: int | None = None


class DiskLimits(Document):
    """What each disk may do in a second, on average; 0 is no limit. Total excludes read and write."""

    total_bytes: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    total_requests: int = 0
    read_requests: int = 0
    write_requests: int = 0


class KeySpec(Document):
    """The public key a guest should let in; `type` is ssh or x509."""

    name: str
    type: str
    data: str


class InjectedFile(Document):
    """A file that a guest writes at its first boot; `contents` is base64."""

    path: str
    contents: str


class MachineSpec(Document):
    """Everything a host needs to run one machine. `user_data` is base64, as the API got it."""

    id: str
    name: str
    hostname: str
    project_id: str
    vcpus: int
    memory_mib: int
    disks: tuple[DiskSpec, ...]
    nics: tuple[NicSpec, ...] = ()
    key: KeySpec | None = None
    user_data: str | None = None
    files: tuple[InjectedFile, ...] = ()
    metadata: dict[str, str] = {}
    availability_zone: str = "nova"
    admin_pass: str | None = None
    launch_index: int = 0
    generation: int = 0
    topology: Topology | None = None
    cpu_limits: CpuLimits | None = None
    disk_limits: DiskLimits | None = None

    @classmethod
    def from_file(cls, content: bytes) -> Self:
        """The spec that a host keeps beside a machine. One that an earlier release wrote with addresses that are
        refused today is repaired: scope ids and unusable name servers are dropped. Raises ValidationError."""
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            with contextlib.suppress(ValueError, AttributeError, TypeError, LookupError):
                document = json.loads(content)
                document["nics"] = [_repaired(nic) for nic in document["nics"]]
                return cls.model_validate_json(json.dumps(document))
            raise


def _repaired(nic: dict[str, Any]) -> dict[str, Any]:
    servers = [_unscoped(server) for server in nic.get("dns_servers", ())]
    return nic | {
        "addresses": [_unscoped(address) for address in nic.get("addresses", ())],
        "gateway": _unscoped(nic["gateway"]) if nic.get("gateway") else None,
        "dns_servers": list(_usable(servers)),
        "allowed": [[mac, _unscoped(prefix)] for mac, prefix in nic.get("allowed", ())],
    }


def _unscoped(text: str) -> str:
    """The text without the scope id, and with the prefix length, if it has one."""
    address, _, rest = text.partition("%")
    _, slash, length = rest.rpartition("/")
    return f"{address}{slash}{length}" if slash else address


def _usable(servers: list[str]) -> Iterator[str]:
    for server in servers:
        with contextlib.suppress(ValueError):
            check_routable(IPv6Address(server))
            yield server


class MachineState(StrEnum):
    """What a host sees when it looks at a machine."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTOFF = "shutoff"  # its disks are here, its process is not
    NO_SPACE = "no-space"  # qemu paused the guest at a write: the host's file system is full (run state io-error)
    CRASHED = "crashed"  # qemu is there but the guest cannot go on (internal-error, guest-panicked)
    ABSENT = "absent"  # nothing of it is here


class MachineReport(Document):
    """One machine as its host sees it."""

    id: str
    state: MachineState
    accelerator: str | None = None  # "kvm" or "tcg" while it runs
    started_at: datetime | None = None


class SnapshotFile(Document):
    """A disk of a machine as it was at one moment, in one file that stands on no other."""

    path: Path
    disk_format: str


class NicCounters(Document):
    """What went through an interface, as the guest sees it."""

    mac: str
    rx_octets: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_drop: int = 0
    tx_octets: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_drop: int = 0


class DiskCounters(Document):
    """What was read from and written to a disk."""

    name: str
    read_bytes: int = 0
    read_requests: int = 0
    write_bytes: int = 0
    write_requests: int = 0
    errors: int = 0


class Diagnostics(Document):
    """A running machine, counted since its process started. Times of processors are in nanoseconds."""

    state: str
    uptime_seconds: int
    memory_mib: int
    cpu_times: tuple[int, ...]
    nics: tuple[NicCounters, ...]
    disks: tuple[DiskCounters, ...]


class HostReport(Document):
    """A host's size and what it found out about itself. `accelerator_reason` says why it is not kvm."""

    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    accelerator: str
    accelerator_reason: str | None = None
    hypervisor_version: int  # qemu 7.2.18 is 7002018, as Nova writes it
    cpu_model: str = ""
    disk_is_low: bool = False  # less is free than new work needs (min_free_disk_mib)


def disk_bytes(disk: DiskSpec) -> int:
    """Size of a disk as the spec has it; 0 is that of its image."""
    return disk.size_gib << 30 or disk.size_mib << 20
