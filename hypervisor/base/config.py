"""Configuration of a hypervisor host."""

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
    """Router advertisement timers in seconds, see radvd.conf(5). Intervals may be long: guests solicit at boot."""

    min_interval: int = 30
    max_interval: int = 100
    min_delay: int = 3
    default_lifetime: int = 1800
    dns_lifetime: int = 1800
    preferred_lifetime: int = 14_400
    valid_lifetime: int = 86_400


@dataclass(frozen=True)
class Nat64:
    """NAT64 and DNS64 configuration. Guests share the addresses of `pool`, which are masqueraded. A mapped IPv4 address
    belongs to one guest; the operator routes it to this host. Without `forwarders` unbound resolves recursively."""

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
    """Configuration of one host.

    - `installation`: four hex digits, unique among the installations on one computer; the prefix of link names.
    - `host_name`: unique among hosts. `peers`: addresses of all hosts, for an underlay without multicast.
    - `forward`: enable IPv6 forwarding from guests to the uplink; `nat64` requires it.
    - `dns_servers`: advertised to guests; the default is the DNS64 resolver, if there is one.
    - `migration_address`: incoming migrations, two `migration_ports` each; the default is the uplink's address.
    - `cpu_model`: the guests' CPU under KVM. A model that all hosts support permits live migration between different
      processors.
    - `shared_machines`: one directory for the machines of all hosts; it allows evacuation with disks.
    - `image_cache_gib`: size limit of the cache of unused base images.
    - `min_free_disk_mib`: reject operations that need disk space when less is free in the machines' file system.
    - `guests_reach_ports`: TCP ports of the host open to guests, besides metadata and resolver; `guests_reach_host`
      opens all. `nat64_allow`: private IPv4 networks that guests may reach through NAT64.
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
