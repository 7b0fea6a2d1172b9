"""Settings with their defaults, overridden by SIXSTACK_* variables and then by command line options."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_type_hints

from app.core.errors import OperatorError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Times are in seconds, sizes carry their unit in the name."""

    state: Path = Path("var")
    """State directory: database, images, machines, keys, clouds.yaml."""
    user: str = ""
    """User of the API, the console proxy and the DNS sync when `sixstack up` starts as root; an unused uid derived from
    the installation when empty, `root` to keep root."""
    listen: str = "127.0.0.1:8774"
    """ADDRESS:PORT of the APIs; IPv6 addresses in brackets."""
    public_url: str | None = None
    """Base of links in responses, such as https://cloud.example.org; the request's Host header when unset."""
    allowed_hosts: str = ""
    """Accepted Host headers besides the host of `public_url`, the address of `listen` and loopback, comma-separated.
    Any host is accepted while both this and `public_url` are unset."""
    console_listen: str | None = None
    """ADDRESS:PORT of the console proxy; the address of the API and the next port when unset."""
    console_url: str | None = None
    """Base of console URLs, such as https://consoles.example.org, behind a reverse proxy with TLS."""
    console_host_url: str | None = None
    """URL at which remote hosts reach the console proxy of this API machine only; when unset, `console_url` or the
    address of the console proxy."""
    database_url: str | None = None
    """An SQLAlchemy URL; a SQLite file in the state directory when unset."""
    database_connections: int = 16
    """Maximum PostgreSQL connections of an API worker, half of them for reads; see docs/many-hosts.md."""
    broker_url: str | None = None
    """URL of RabbitMQ, required for remote hosts: amqp://USER:PASSWORD@HOST//, or amqps:// for TLS."""
    broker_management_url: str | None = None
    """RabbitMQ's management API, for `sixstack host add`: http://USER:PASSWORD@HOST:15672."""
    broker_authority: str | None = None
    """CA certificate file that verifies the broker's certificate; the system's CA store when unset."""
    agent: bool = True
    """Whether to run a compute agent on this computer."""
    region: str = "RegionOne"
    host_name: str = socket.gethostname()
    """The name of this host, as `openstack hypervisor list` shows it."""
    availability_zone: str = "nova"
    workers: int = 1
    """API worker processes. One handles thousands of requests per second; more use more cores."""
    worker_threads: int = 8
    """Threads of each API worker for requests other than transfers."""
    transfer_threads: int = 32
    """Concurrent uploads and downloads of images in each API worker."""
    transfer_min_kib: int = 64
    """Minimum rate of uploads and downloads in KiB/s; slower ones are aborted. 0 disables the limit."""
    transfer_grace_seconds: float = 30.0
    """Seconds for which a transfer may be slower than the minimum rate."""
    request_body_seconds: float = 10.0
    """Timeout for receiving the body of a request other than an upload."""
    agent_threads: int = 4
    """Operations on machines that the agent executes concurrently."""

    prefix: str | None = None
    """IPv6 prefix, /16 to /64, that networks get a /64 of; a random ULA /48 when unset."""
    uplink: str = "lo"
    """Network interface for VXLAN traffic; `lo` connects guests of this host only."""
    reserved_prefixes: str = ""
    """IPv6 prefixes, comma-separated, that users cannot choose for their networks, such as those of the operator's
    name servers, databases and offices. `peers` and configured name servers are reserved as well."""
    peers: str = ""
    """Underlay addresses of all hosts, comma-separated; required if the underlay has no multicast."""
    isolate_guests: bool = False
    """Block traffic between guests of a network; they reach only their router and networks behind it."""
    guests_reach_host: bool = False
    """Allow guests to reach all ports of their host; otherwise metadata, the resolver and `guests_reach_ports` only."""
    guests_reach_ports: str = ""
    """TCP ports of hosts that guests may reach, such as 8774 for the API, comma-separated."""
    forward: bool = False
    """Forward guests' packets between networks and to the uplink; implied by `nat64`."""
    nat64: bool = False
    """Give guests access to IPv4 with NAT64 (tayga) and DNS64 (unbound)."""
    nat64_prefix: str = "64:ff9b::/96"
    """NAT64 prefix; private IPv4 addresses require one other than the well-known prefix (RFC 6052)."""
    nat64_pool: str = "192.168.240.0/20"
    """IPv4 addresses of guests inside the translator; the host then masquerades them."""
    nat64_map: str = ""
    """Static IPv4 addresses of guests, such as 192.0.2.7=2001:db8::7, comma-separated."""
    nat64_allow: str = ""
    """Private IPv4 networks that guests may reach through NAT64, such as 10.1.0.0/16, comma-separated."""
    dns_forwarders: str = ""
    """Forwarders of the host's DNS64 resolver, comma-separated; the root servers when empty."""
    dns_zone: str = ""
    """DNS zone of servers' names, such as cloud.example.org."""
    dns_reverse_zones: str = ""
    """Reverse zones of the prefixes, such as 0.0.0.1.8.b.d.0.1.0.0.2.ip6.arpa, comma-separated."""
    dns_server: str = ""
    """ADDRESS or ADDRESS:PORT of the zones' primary name server, which must allow updates and zone transfers."""
    dns_key_file: Path | None = None
    """File with the TSIG key for that name server, in the format of tsig-keygen."""
    dns_sync_seconds: float = 10.0
    """Interval at which `sixstack up` updates that name server; 0 leaves it to `sixstack dns sync`."""
    dns_servers: str = ""
    """Addresses of guests' name servers, comma-separated."""
    dns_search: str = ""
    """Guests' DNS search domains, comma-separated."""
    ra_interval_seconds: int = 100
    """Maximum interval between router advertisements (MaxRtrAdvInterval)."""
    ra_lifetime_seconds: int = 1800
    """Lifetime of the default router and its name servers in router advertisements."""
    ra_preferred_seconds: int = 14_400
    """Preferred lifetime of the prefix in router advertisements."""
    ra_valid_seconds: int = 86_400
    """Valid lifetime of the prefix in router advertisements."""
    accelerator: str = "auto"
    """Accelerator of qemu: auto, kvm or tcg."""
    cpu_model: str = ""
    """qemu's CPU model under KVM, such as Haswell-noTSX; the host's own when empty. Live migration between different
    hosts requires a model that all support."""
    shared_machines: str = ""
    """Directory on shared storage, such as NFS or CephFS, for the disks of all machines: evacuation then keeps disks.
    Each host stores disks locally when empty."""
    migration_ports: str = "49152-49215"
    """Ports for incoming live migrations, two for each."""
    migration_address: str = ""
    """Address of this host for incoming live migrations; the uplink's address when empty."""
    reserved_memory_mib: int = 512
    """Memory of the host that is reserved, not available to machines."""
    min_free_disk_mib: int = 1024
    """Free disk space that a host must keep for new servers, incoming migrations, resizes and snapshots."""
    cpu_ratio: float = 16.0
    memory_ratio: float = 1.0
    disk_ratio: float = 1.0
    soft_reboot_seconds: float = 60.0
    """Timeout for a guest's ACPI shutdown on stop and soft reboot, after which it is forced."""

    image_max_gib: int = 1024
    """Maximum size of an image and of its virtual disk, in GiB."""
    image_quota_gib: int = -1
    """Quota of the images of a project, in GiB; -1 is unlimited."""
    image_store: str = ""
    """Image store: s3://BUCKET/PREFIX?endpoint=URL&region=NAME; files in the state directory when empty."""
    image_cache_gib: int = 20
    """Maximum size of a host's cache of base images that none of its servers uses, in GiB. The least recently used are
    evicted first, and all of them while less than a tenth of the disk is free."""
    image_import_ports: str = "80,443"
    """Allowed ports in URLs of web-download imports, comma-separated; empty allows any."""
    image_import_allow: str = ""
    """Private networks that web-download imports may connect to, such as 10.0.0.0/8, comma-separated."""

    token_seconds: int = 3600
    """Lifetime of tokens."""
    lockout_attempts: int = 10
    """Consecutive failed logins of a user from one source address that lock the user out there; 0 disables lockout."""
    lockout_seconds: int = 60
    """Duration of a lockout, and the period in which failed logins count."""
    trusted_proxies: str = ""
    """Addresses or networks of reverse proxies whose X-Forwarded-For is trusted, comma-separated."""
    password_pattern: str = ""
    """Regular expression that new passwords must match as a whole; any password is allowed when empty."""
    password_pattern_description: str = ""
    """Description of the pattern in errors for users."""
    password_expires_days: float = 0.0
    """Lifetime of passwords; 0 is unlimited."""
    password_minimum_days: float = 0.0
    """Minimum age of a password before its user may change it."""
    keep_deleted_days: float = 90.0
    """Retention of the rows of deleted servers, for lists of deleted servers and their actions; 0 keeps them forever.
    Usage reports include deleted servers in either case."""
    sqlite_synchronous: str = "NORMAL"
    """PRAGMA synchronous: NORMAL may lose the last commits on power failure (never when a process dies), FULL not."""

    @property
    def api_directory(self) -> Path:
        """Directory of the database and run-time files of the API's processes; the state directory in old releases."""
        directory = self.state / "api"
        return directory if directory.is_dir() else self.state

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.api_directory.absolute() / DATABASE}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`. Raises OperatorError if malformed."""
        return _parse_address("--listen", self.listen)

    @property
    def console_address(self) -> tuple[str, int]:
        """Host and port of `console_listen` or its default. Raises OperatorError if malformed."""
        if self.console_listen:
            return _parse_address("--console-listen", self.console_listen)
        host, port = self.address
        return host, port + 1 if port < 65535 else 0

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Networks of `trusted_proxies`. Raises OperatorError if malformed."""
        return _parse_networks("SIXSTACK_TRUSTED_PROXIES", self.trusted_proxies)

    @classmethod
    def read(cls, given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Self:
        """Read each setting from `given` (None counts as absent), then SIXSTACK_NAME in `environ`, then its default.

        Raises OperatorError for a value that cannot be converted.
        """
        values: dict[str, Any] = {}
        hints = get_type_hints(cls)
        for field in fields(cls):
            if given.get(field.name) is not None:
                values[field.name] = given[field.name]
            elif (text := environ.get(f"SIXSTACK_{field.name.upper()}")) is not None:
                values[field.name] = _parse(field.name, hints[field.name], text)
        return cls(**values)

    def environ(self) -> dict[str, str]:
        """Return the SIXSTACK_* variables from which `read` restores these settings, for child processes."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {f"SIXSTACK_{name.upper()}": str(value) for name, value in values.items() if value is not None}


DATABASE = "sixstack.db"
DATABASE_SUFFIXES = ("", "-wal", "-shm", "-journal", ".lock")
BOOLEANS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
    "": False,
}


def _parse_address(option: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise OperatorError(f"{option} must be ADDRESS:PORT, such as 127.0.0.1:8774 or [::]:8774, not {text!r}")
    return host.strip("[]"), int(port)


@lru_cache(maxsize=8)
def _parse_networks(name: str, text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(word.strip()) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise OperatorError(f"{name}: {error}.") from None


def _parse(name: str, kind: Any, text: str) -> Any:
    if isinstance(kind, UnionType):
        kind = get_args(kind)[0]
    if kind is bool:
        if (word := text.lower()) not in BOOLEANS:
            raise OperatorError(f"SIXSTACK_{name.upper()} must be true or false, not {text!r}.")
        return BOOLEANS[word]
    try:
        return kind(text)
    except ValueError:
        raise OperatorError(f"SIXSTACK_{name.upper()} must be of type {kind.__name__}, not {text!r}.") from None
