"""What an operator decides about a host."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Literal

AcceleratorChoice = Literal["auto", "kvm", "tcg"]
WELL_KNOWN_PREFIX = IPv6Network("64:ff9b::/96")
DEFAULT_IPV4_POOL = IPv4Network("192.168.240.0/20")
Nat64Mappings = tuple[tuple[IPv4Address, IPv6Address], ...]


@dataclass(frozen=True)
class RouterTiming:
    """Seconds, as radvd.conf(5) names them. Guests ask when they boot, so unsolicited ones need not be frequent."""

    min_interval: int = 30
    max_interval: int = 100
    min_delay: int = 3
    default_lifetime: int = 1800
    dns_lifetime: int = 1800
    preferred_lifetime: int = 14_400
    valid_lifetime: int = 86_400


@dataclass(frozen=True)
class Nat64:
    """What the operator decides. Guests share the addresses of `pool`, which nobody outside sees; a mapped IPv4 address
    is routed to this host by the operator and belongs to one guest. Without `forwarders` unbound asks the root."""

    prefix: IPv6Network = WELL_KNOWN_PREFIX
    pool: IPv4Network = DEFAULT_IPV4_POOL
    mappings: Nat64Mappings = ()
    forwarders: tuple[IPv4Address | IPv6Address, ...] = ()

    def __post_init__(self) -> None:
        if self.prefix.prefixlen not in (32, 40, 48, 56, 64, 96):
            raise ValueError(f"a NAT64 prefix is a /96, /64, /56, /48, /40 or /32, not {self.prefix}")
        if self.pool.prefixlen > 29:
            raise ValueError(f"the IPv4 pool {self.pool} is too small: give it a /29 or more")
        for address, _ in self.mappings:
            if address in self.pool:
                raise ValueError(f"{address} is in the pool {self.pool} and cannot be mapped to a guest")


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
    accelerator: AcceleratorChoice = "auto"
    dns_servers: tuple[IPv6Address, ...] = ()
    dns_search: tuple[str, ...] = ()
    router_timing: RouterTiming = field(default_factory=RouterTiming)
    reserved_memory_mib: int = 512
    qemu: str = "qemu-system-x86_64"
    migration_ports: range = range(49152, 49216)
    migration_address: IPv6Address | None = None
    cpu_model: str = ""
    shared_machines: Path | None = None
    image_cache_gib: int = 0
    min_free_disk_mib: int = 1024
