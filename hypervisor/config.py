"""What an operator decides about a host."""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address
from pathlib import Path

from hypervisor.accelerator import Wanted
from hypervisor.nat64 import Nat64
from hypervisor.radvd import Timing


@dataclass(frozen=True)
class HostConfig:
    """What the operator decides about a host.

    `installation` is four hex digits, different for each installation on one computer: link names begin with it.
    `host_name` is different for each host. `peers` are the addresses of all hosts, for an underlay without multicast.
    `forward` lets the kernel pass guests' packets on to the uplink, which `nat64` needs as well. Guests are told
    `dns_servers`, or the DNS64 resolver where there is one and the operator has named no other. Guests come from other
    hosts by `migration_address`, or by the uplink's, on two of `migration_ports`. `cpu_model` is what guests see under
    KVM: one that all hosts have lets them move between hosts whose processors differ. All hosts may have their machines
    in one directory, `shared_machines`: then what a dead host leaves is started elsewhere, disks and all. Images that
    no machine stands on just now are kept up to `image_cache_gib` for the next one. While less than `min_free_disk_mib`
    of the machines' file system is free, no work is accepted that needs more of it. On the host guests reach metadata,
    the resolver and `guests_reach_ports` (TCP) only, unless `guests_reach_host`; through NAT64, of private networks
    `nat64_allow` only.
    """

    state: Path
    installation: str
    host_name: str
    uplink: str = "lo"
    peers: tuple[IPv6Address, ...] = ()
    isolate_guests: bool = False
    guests_reach_host: bool = False
    guests_reach_ports: tuple[int, ...] = ()
    forward: bool = False
    nat64_allow: tuple[IPv4Network, ...] = ()
    nat64: Nat64 | None = None
    accelerator: Wanted = "auto"
    dns_servers: tuple[IPv6Address, ...] = ()
    dns_search: tuple[str, ...] = ()
    router_timing: Timing = field(default_factory=Timing)
    reserved_memory_mib: int = 512
    qemu: str = "qemu-system-x86_64"
    migration_ports: range = range(49152, 49216)
    migration_address: IPv6Address | None = None
    cpu_model: str = ""
    shared_machines: Path | None = None
    image_cache_gib: int = 0
    min_free_disk_mib: int = 1024
