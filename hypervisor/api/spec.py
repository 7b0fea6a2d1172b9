"""Documents between control plane and host: MachineSpec (desired) and MachineReport (actual).

A MachineSpec is complete: a host needs no further queries to run the machine. It is frozen and serialisable
(`model_dump_json`), is stored with the machine, and refers to images by id and hash, never by path.
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


def _check_interface(value: IPv6Interface) -> IPv6Interface:
    refuse_scope(value)
    check_routable(value.ip)
    return value


def _check_gateway(value: IPv6Address) -> IPv6Address:
    check_unicast(value)
    return value


def _check_dns_server(value: IPv6Address) -> IPv6Address:
    check_routable(value)
    return value


def _check_prefix(value: IPv6Network) -> IPv6Network:
    refuse_scope(value)
    return value


Mac = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]
DomainName = Annotated[
    str, StringConstraints(max_length=255, pattern=r"^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?$")
]
GuestAddress = Annotated[IPv6Interface, AfterValidator(_check_interface)]
Gateway = Annotated[IPv6Address, AfterValidator(_check_gateway)]
DnsServer = Annotated[IPv6Address, AfterValidator(_check_dns_server)]
Prefix = Annotated[IPv6Network, AfterValidator(_check_prefix)]


class Document(BaseModel):
    """Base of immutable messages between control plane and host; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageRef(Document):
    """Image properties that a host needs to fetch, verify and convert an image.

    `disk_format` is the format detected by the image API (qcow2, raw, vmdk, vdi, vpc, vhdx, iso). `sha512` is the hash
    of the stored bytes, None for images without one.
    """

    id: str
    disk_format: str
    size_bytes: int
    virtual_size_bytes: int
    sha512: str | None = None


class DiskSpec(Document):
    """A disk of the machine; blank without an image. `size_gib` 0 selects the virtual size of the image, or `size_mib`
    for a blank disk. A blank disk may have a `filesystem`: swap, or ext4 with the disk's name as label."""

    name: str = "root"
    size_gib: int = 0
    size_mib: int = 0
    image: ImageRef | None = None
    cdrom: bool = False
    filesystem: Literal["ext4", "swap"] | None = None


class Rate(Document):
    """A bandwidth limit: `average` and `peak` in bytes per second, `burst` in bytes. `peak` 0 is the average, exceeded
    only by the burst; `burst` 0 is the smallest burst that sustains the average."""

    average: int
    peak: int = 0
    burst: int = 0


class NicSpec(Document):
    """A network interface on one segment. Addresses carry the prefix length of their subnet. `inbound` limits traffic
    to the guest, `outbound` traffic from the guest; None is unlimited. `allowed` are additional MACs and prefixes that
    the guest may send from (Neutron: allowed address pairs). NAT64 maps `ipv4_address` to the first address. An
    `isolated` guest does not reach others on its segment.

    Hosts do not trust the control plane: invalid addresses, MACs and domain names are rejected here, because these
    values become part of configuration files and packet filter rules."""

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
    """The user's device tag, exposed to the guest in its metadata."""
    allowed: tuple[tuple[Mac, Prefix], ...] = ()
    ipv4_address: IPv4Address | None = None
    isolated: bool = False
    routes: tuple[tuple[Prefix, Gateway], ...] = ()
    """Static routes: destination and next hop in the guest's subnet, such as another guest that routes."""
    prefix_by_user: bool = False
    """The prefix is a ULA chosen by a user: a host rejects it when the host itself uses the same prefix."""


class Topology(Document):
    """CPU topology of the guest. The product of sockets, cores and threads equals the number of vCPUs."""

    sockets: int
    cores: int
    threads: int


class CpuLimits(Document):
    """CPU limits of a machine. `shares` is a weight relative to other machines (default 1024). Per `period_us`, all
    vCPUs together use at most `quota_us` times the number of vCPUs. None is unlimited."""

    shares: int | None = None
    period_us: int | None = None
    quota_us: int | None = None


class DiskLimits(Document):
    """Average I/O limits per disk and second; 0 is unlimited. Total limits exclude read and write limits."""

    total_bytes: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    total_requests: int = 0
    read_requests: int = 0
    write_requests: int = 0


class KeySpec(Document):
    """The public key of the server's key pair; `type` is ssh or x509."""

    name: str
    type: str
    data: str


class InjectedFile(Document):
    """A file that the guest creates at its first boot; `contents` is base64."""

    path: str
    contents: str


class MachineSpec(Document):
    """The complete definition of a machine for a host. `user_data` is base64, as received by the API."""

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
        """Parse the spec stored with a machine. Specs of earlier releases with addresses that are invalid today are
        repaired by dropping scope ids and unusable name servers. Raises ValidationError."""
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            with contextlib.suppress(ValueError, AttributeError, TypeError, LookupError):
                document = json.loads(content)
                document["nics"] = [_repair_nic(nic) for nic in document["nics"]]
                return cls.model_validate_json(json.dumps(document))
            raise


def _repair_nic(nic: dict[str, Any]) -> dict[str, Any]:
    servers = [_drop_scope(server) for server in nic.get("dns_servers", ())]
    return nic | {
        "addresses": [_drop_scope(address) for address in nic.get("addresses", ())],
        "gateway": _drop_scope(nic["gateway"]) if nic.get("gateway") else None,
        "dns_servers": list(_usable_dns_servers(servers)),
        "allowed": [[mac, _drop_scope(prefix)] for mac, prefix in nic.get("allowed", ())],
    }


def _drop_scope(text: str) -> str:
    """Remove the scope id from an address or prefix; keep the prefix length."""
    address, _, rest = text.partition("%")
    _, slash, length = rest.rpartition("/")
    return f"{address}{slash}{length}" if slash else address


def _usable_dns_servers(servers: list[str]) -> Iterator[str]:
    for server in servers:
        with contextlib.suppress(ValueError):
            check_routable(IPv6Address(server))
            yield server


class MachineState(StrEnum):
    """The actual state of a machine on its host."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTOFF = "shutoff"  # disks, but no process
    NO_SPACE = "no-space"  # qemu paused the guest at a write: the host's file system is full (run state io-error)
    CRASHED = "crashed"  # qemu runs, but the guest cannot continue (internal-error, guest-panicked)
    ABSENT = "absent"  # neither disks nor a process


class MachineReport(Document):
    """The state of one machine, as reported by its host."""

    id: str
    state: MachineState
    accelerator: str | None = None  # "kvm" or "tcg" while it runs
    started_at: datetime | None = None


class SnapshotFile(Document):
    """A point-in-time copy of a disk in one file without a backing file."""

    path: Path
    disk_format: str


class NicCounters(Document):
    """Traffic counters of an interface, from the guest's side."""

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
    """I/O counters of a disk."""

    name: str
    read_bytes: int = 0
    read_requests: int = 0
    write_bytes: int = 0
    write_requests: int = 0
    errors: int = 0


class Diagnostics(Document):
    """Diagnostics of a running machine since its process started. `cpu_times` are in nanoseconds."""

    state: str
    uptime_seconds: int
    memory_mib: int
    cpu_times: tuple[int, ...]
    nics: tuple[NicCounters, ...]
    disks: tuple[DiskCounters, ...]


class HostReport(Document):
    """Capacity and capabilities of a host. `accelerator_reason` is the reason for not using KVM."""

    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    accelerator: str
    accelerator_reason: str | None = None
    hypervisor_version: int  # qemu 7.2.18 is 7002018, as in Nova
    cpu_model: str = ""
    disk_is_low: bool = False  # free space is below min_free_disk_mib


def disk_bytes(disk: DiskSpec) -> int:
    """Return the disk size in the spec in bytes; 0 means the virtual size of the image."""
    return disk.size_gib << 30 or disk.size_mib << 20
