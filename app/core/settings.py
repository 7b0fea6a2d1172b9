"""Every knob and its default. Read once, from the command line over SIXSTACK_* over the defaults, then passed down."""

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
    """Everything this installation keeps: database, images, machines, keys, clouds.yaml."""
    user: str = ""
    """The user that the API, the console proxy and the DNS process run as when `sixstack up` starts as root; a number
    of the installation's own when empty, `root` to give up no privileges."""
    listen: str = "127.0.0.1:8774"
    """ADDRESS:PORT of the one port; IPv6 addresses in brackets."""
    public_url: str | None = None
    """What hrefs start with, such as https://cloud.example.org; the request's own Host when unset."""
    allowed_hosts: str = ""
    """Names in Host headers that requests are answered for besides that of `public_url`, the address of `listen` and
    loopback, comma-separated; any name while both this and `public_url` are unset."""
    console_listen: str | None = None
    """ADDRESS:PORT where browsers open consoles; beside the API, at the port after its own, when unset."""
    console_url: str | None = None
    """What URLs of consoles start with, such as https://consoles.example.org, where a proxy brings TLS to them."""
    console_host_url: str | None = None
    """How hosts on other computers reach the console proxy of this machine, and of no other; `console_url` when unset,
    or the address that consoles are served at."""
    database_url: str | None = None
    """An SQLAlchemy URL; a SQLite file in the state directory when unset."""
    database_connections: int = 16
    """Connections to PostgreSQL that an API worker may have at most, half of them for reads; see docs/many-hosts.md."""
    broker_url: str | None = None
    """RabbitMQ, when there are hosts on other computers: amqp://USER:PASSWORD@HOST//, or amqps:// for TLS."""
    broker_management_url: str | None = None
    """RabbitMQ's management API, for `sixstack host add`: http://USER:PASSWORD@HOST:15672."""
    broker_authority: str | None = None
    """The file of the certificate authority that the broker's certificate is from; the system's own when unset."""
    agent: bool = True
    """Run machines on this computer, too."""
    region: str = "RegionOne"
    host_name: str = socket.gethostname()
    """The name of this host, as `openstack hypervisor list` shows it."""
    availability_zone: str = "nova"
    workers: int = 1
    """API worker processes. One does thousands of requests a second; more help on many cores."""
    worker_threads: int = 8
    """Threads of each API worker: how many slow requests (log-ins) may be under way."""
    transfer_threads: int = 32
    """Uploads and downloads of images that may be under way in each API worker, besides other requests."""
    transfer_min_kib: int = 64
    """KiB per second that an upload or download must reach, or it is ended; 0 is without limit."""
    transfer_grace_seconds: float = 30.0
    """Seconds that a transfer may be slower than that, or pause."""
    request_body_seconds: float = 10.0
    """Seconds in which the body of a request other than an upload must arrive."""
    agent_threads: int = 4
    """Machines that are being started or ended at the same time."""

    prefix: str | None = None
    """An IPv6 prefix, /48 to /64, that networks get their /64 from; a random ULA /48 when unset."""
    uplink: str = "lo"
    """The link VXLAN packets leave by; `lo` sends nothing out."""
    reserved_prefixes: str = ""
    """IPv6 prefixes, comma-separated, that users cannot choose for their networks, such as those of the operator's own
    name servers, databases and offices. Prefixes of `peers` and name servers of the settings are reserved as well."""
    peers: str = ""
    """Underlay addresses of all hosts, comma-separated, where the underlay has no multicast."""
    isolate_guests: bool = False
    """Guests of one network reach their router and what is behind it, but not each other."""
    guests_reach_host: bool = False
    """Let guests reach every service of their host; otherwise only metadata, the resolver and `guests_reach_ports`."""
    guests_reach_ports: str = ""
    """TCP ports of hosts that guests may reach, such as 8774 for the API, comma-separated."""
    forward: bool = False
    """Let the kernel pass guests' packets on between networks and to the uplink; `nat64` does so too."""
    nat64: bool = False
    """Give guests a way to IPv4: tayga translates, unbound names."""
    nat64_prefix: str = "64:ff9b::/96"
    """What IPv4 addresses are embedded in; one of your own is needed to reach private IPv4 addresses."""
    nat64_pool: str = "192.168.240.0/20"
    """IPv4 addresses that guests have inside the translator; they leave as the host's own."""
    nat64_map: str = ""
    """IPv4 addresses that belong to one guest each, such as 192.0.2.7=2001:db8::7, comma-separated."""
    nat64_allow: str = ""
    """Private IPv4 networks that guests may reach through NAT64, such as 10.1.0.0/16, comma-separated."""
    dns_forwarders: str = ""
    """Name servers that the host's DNS64 resolver asks, comma-separated; the root when empty."""
    dns_zone: str = ""
    """The zone that servers get names in, such as cloud.example.org."""
    dns_reverse_zones: str = ""
    """The reverse zones of the prefixes, such as 0.0.0.1.8.b.d.0.1.0.0.2.ip6.arpa, comma-separated."""
    dns_server: str = ""
    """ADDRESS or ADDRESS:PORT of the zones' primary name server, which takes updates and lets the zones be read."""
    dns_key_file: Path | None = None
    """The key that it knows us by, as tsig-keygen writes it."""
    dns_sync_seconds: float = 10.0
    """How often `sixstack up` brings that name server up to date; 0 leaves it to `sixstack dns sync`."""
    dns_servers: str = ""
    """Addresses of name servers that guests are told, comma-separated."""
    dns_search: str = ""
    """Search domains that guests are told, comma-separated."""
    ra_interval_seconds: int = 100
    """The longest time between two router advertisements."""
    ra_lifetime_seconds: int = 1800
    """How long guests believe in a router and its name servers that they hear no more of."""
    ra_preferred_seconds: int = 14_400
    """How long guests begin connections from an address whose prefix they hear no more of."""
    ra_valid_seconds: int = 86_400
    """How long they keep such an address."""
    accelerator: str = "auto"
    """auto, kvm or tcg."""
    cpu_model: str = ""
    """What guests see of the processor under KVM, such as Haswell-noTSX: one that all hosts have lets them move between
    hosts that differ. The host's own when empty."""
    shared_machines: str = ""
    """A directory that all hosts share, such as one on NFS or CephFS, with the disks of all machines: servers of a host
    that is down are then evacuated with their disks. Each host's own when empty."""
    migration_ports: str = "49152-49215"
    """Ports by which guests come from other hosts: two for each that is on its way."""
    migration_address: str = ""
    """The address of this host by which guests come from other hosts; the uplink's own when empty."""
    reserved_memory_mib: int = 512
    """Memory of the host that is never given to machines."""
    min_free_disk_mib: int = 1024
    """What has to be free of a host's disk for new servers, migrations to it, resizes and snapshots."""
    cpu_ratio: float = 16.0
    memory_ratio: float = 1.0
    disk_ratio: float = 1.0
    soft_reboot_seconds: float = 60.0
    """How long a guest may take to obey the power button before it is forced, for stop and soft reboot."""

    image_max_gib: int = 1024
    """The largest image, and the largest disk that one may hold, in GiB."""
    image_quota_gib: int = -1
    """What all images of a project may take together, in GiB; -1 is without limit."""
    image_store: str = ""
    """Where images are kept: s3://BUCKET/PREFIX?endpoint=URL&region=NAME; files in the state directory when empty."""
    image_cache_gib: int = 20
    """How much a host keeps of images that none of its servers stands on, in GiB: the next server from one of them need
    not wait for it. Those wanted longest ago go first, and all of them while less than a tenth of the disk is free."""
    image_import_ports: str = "80,443"
    """Ports that images may be downloaded from, comma-separated; empty allows any."""
    image_import_allow: str = ""
    """Networks that images may be downloaded from although they are not public, such as 10.0.0.0/8, comma-separated."""

    token_seconds: int = 3600
    """How long a token is valid."""
    lockout_attempts: int = 10
    """Wrong passwords in a row, from one source address, that lock a user out there; 0 is never."""
    lockout_seconds: int = 60
    """How long a lockout lasts, and how long wrong passwords count."""
    trusted_proxies: str = ""
    """Addresses or networks of reverse proxies whose X-Forwarded-For names the client, comma-separated."""
    password_pattern: str = ""
    """A regular expression that new passwords must match as a whole; any password will do when empty."""
    password_pattern_description: str = ""
    """What the pattern means, for people whose password does not match it."""
    password_expires_days: float = 0.0
    """How long a password is good before it must be changed; 0 is forever."""
    password_minimum_days: float = 0.0
    """How long a user must keep a new password before changing it again."""
    keep_deleted_days: float = 90.0
    """How long rows of deleted servers are kept, for lists of deleted servers and their actions; 0 is for ever. Usage
    reports count them for ever, either way."""
    sqlite_synchronous: str = "NORMAL"
    """NORMAL may lose the last commits when the power fails (never when a process dies); FULL does not."""

    @property
    def api_directory(self) -> Path:
        """What the API's processes write: the database and run-time files. Earlier releases had the state directory."""
        directory = self.state / "api"
        return directory if directory.is_dir() else self.state

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.api_directory.absolute() / DATABASE}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`. Raises OperatorError when it is not ADDRESS:PORT."""
        return _parse_address("--listen", self.listen)

    @property
    def console_address(self) -> tuple[str, int]:
        """Host and port of `console_listen`. Raises OperatorError when it is not ADDRESS:PORT."""
        if self.console_listen:
            return _parse_address("--console-listen", self.console_listen)
        host, port = self.address
        return host, port + 1 if port < 65535 else 0

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of `trusted_proxies`. Raises OperatorError."""
        return _parse_networks("SIXSTACK_TRUSTED_PROXIES", self.trusted_proxies)

    @classmethod
    def read(cls, given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Self:
        """`given` (None means not given) wins over SIXSTACK_NAME in the environment, which wins over the default."""
        values: dict[str, Any] = {}
        hints = get_type_hints(cls)
        for field in fields(cls):
            if given.get(field.name) is not None:
                values[field.name] = given[field.name]
            elif (text := environ.get(f"SIXSTACK_{field.name.upper()}")) is not None:
                values[field.name] = _parse(field.name, hints[field.name], text)
        return cls(**values)

    def environ(self) -> dict[str, str]:
        """The SIXSTACK_* variables from which `read` makes the same settings again, for child processes."""
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
        raise OperatorError(f"{option} wants ADDRESS:PORT, such as 127.0.0.1:8774 or [::]:8774, not {text!r}")
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
            raise OperatorError(f"SIXSTACK_{name.upper()} is true or false, not {text!r}.")
        return BOOLEANS[word]
    try:
        return kind(text)
    except ValueError:
        raise OperatorError(f"SIXSTACK_{name.upper()} wants {kind.__name__}, not {text!r}.") from None
