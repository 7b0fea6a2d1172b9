"""Host configuration: builds the hypervisor from the settings; agent lock and restart mark of the state directory."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address
from pathlib import Path

from app.core.addresses import parse_ipv6_address
from app.core.errors import OperatorError
from app.core.installation import Installation
from app.core.settings import Settings
from compute_agent.images.source import make_source
from hypervisor.api.protocol import ImageSource
from hypervisor.base.config import HostConfig, Nat64, RouterTiming
from hypervisor.driver import QemuHypervisor

BOOT_ID = "boot-id"
RESTART_MARK = "machines-ended"


def make_hypervisor(
    settings: Settings, installation: Installation, images: ImageSource | None = None
) -> QemuHypervisor:
    """Return the checked hypervisor with images from `images` or the store of the settings.

    Raises HostUnfit, which names the remedy, or OperatorError for an invalid setting.
    """
    if settings.accelerator not in ("auto", "kvm", "tcg"):
        raise OperatorError(f"--accelerator is auto, kvm or tcg, not {settings.accelerator}.")
    try:
        dns_servers = tuple(parse_ipv6_address(server) for server in _split_list(settings.dns_servers))
    except ValueError as error:
        raise OperatorError(f"--dns-servers: {error}; guests have IPv6 only.") from None
    try:
        peers = tuple(IPv6Address(peer) for peer in _split_list(settings.peers))
    except ValueError as error:
        raise OperatorError(f"--peers: {error}; VXLAN goes over IPv6.") from None
    config = HostConfig(
        state=settings.state,
        installation=installation.id,
        host_name=settings.host_name,
        uplink=settings.uplink,
        peers=peers,
        isolate_guests=settings.isolate_guests,
        guests_reach_host=settings.guests_reach_host,
        guests_reach_ports=_guests_reach_ports(settings),
        forward=settings.forward,
        nat64_allow=_nat64_allow(settings),
        nat64=_nat64(settings) if settings.nat64 else None,
        accelerator=settings.accelerator,  # type: ignore[arg-type]
        dns_servers=dns_servers,
        dns_search=tuple(_split_list(settings.dns_search)),
        router_timing=_timing(settings),
        reserved_memory_mib=settings.reserved_memory_mib,
        migration_ports=_ports(settings.migration_ports),
        migration_address=_migration_address(settings),
        cpu_model=settings.cpu_model,
        shared_machines=Path(settings.shared_machines) if settings.shared_machines else None,
        image_cache_gib=max(0, settings.image_cache_gib),
        min_free_disk_mib=max(0, settings.min_free_disk_mib),
    )
    hypervisor = QemuHypervisor(config, images or make_source(settings))
    hypervisor.check()
    return hypervisor


def _ports(text: str) -> range:
    try:
        first, last = map(int, text.split("-"))
    except ValueError:
        raise OperatorError(f"SIXSTACK_MIGRATION_PORTS is two numbers, such as 49152-49215, not {text}.") from None
    if not 1024 <= first < last <= 65535:
        raise OperatorError(f"SIXSTACK_MIGRATION_PORTS: at least two of 1024 to 65535 are needed, not {text}.")
    return range(first, last + 1)


def _guests_reach_ports(settings: Settings) -> tuple[int, ...]:
    words = _split_list(settings.guests_reach_ports)
    if not all(word.isascii() and word.isdigit() and 0 < int(word) < 65536 for word in words):
        raise OperatorError(
            f"--guests-reach-ports takes TCP ports, such as 8774,8775, not {settings.guests_reach_ports}."
        )
    return tuple(map(int, words))


def _nat64_allow(settings: Settings) -> tuple[IPv4Network, ...]:
    try:
        networks = [IPv4Network(word) for word in _split_list(settings.nat64_allow)]
    except ValueError as error:
        raise OperatorError(f"SIXSTACK_NAT64_ALLOW: {error}.") from None
    return tuple(collapse_addresses(networks))


def _migration_address(settings: Settings) -> IPv6Address | None:
    try:
        return IPv6Address(settings.migration_address) if settings.migration_address else None
    except ValueError as error:
        raise OperatorError(f"SIXSTACK_MIGRATION_ADDRESS: {error}; hosts reach each other by IPv6.") from None


def _nat64(settings: Settings) -> Nat64:
    try:
        pairs = [word.split("=") for word in _split_list(settings.nat64_map)]
        return Nat64(
            prefix=IPv6Network(settings.nat64_prefix),
            pool=IPv4Network(settings.nat64_pool),
            mappings=tuple((IPv4Address(outside), parse_ipv6_address(guest)) for outside, guest in pairs),
            forwarders=tuple(ip_address(server) for server in _split_list(settings.dns_forwarders)),
        )
    except ValueError as error:
        raise OperatorError(f"SIXSTACK_NAT64_*, SIXSTACK_DNS_FORWARDERS: {error}.") from None


def _timing(settings: Settings) -> RouterTiming:
    longest = settings.ra_interval_seconds
    if not 4 <= longest <= 1800 or settings.ra_lifetime_seconds not in range(longest, 9001):
        raise OperatorError(
            "SIXSTACK_RA_INTERVAL_SECONDS is 4 to 1800, SIXSTACK_RA_LIFETIME_SECONDS no less than it and at most 9000."
        )
    if settings.ra_preferred_seconds > settings.ra_valid_seconds:
        raise OperatorError("SIXSTACK_RA_PREFERRED_SECONDS is at most SIXSTACK_RA_VALID_SECONDS.")
    return RouterTiming(
        min_interval=max(3, longest * 3 // 10),
        max_interval=longest,
        default_lifetime=settings.ra_lifetime_seconds,
        dns_lifetime=settings.ra_lifetime_seconds,
        preferred_lifetime=settings.ra_preferred_seconds,
        valid_lifetime=settings.ra_valid_seconds,
    )


def _split_list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


@contextmanager
def lock_state_directory(state: Path) -> Iterator[None]:
    """Hold the lock of a state directory. Raises OperatorError when another agent holds it."""
    with (state / "agent.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorError(f"Another agent is running in {state}.") from None
        yield


def should_restart_machines(state: Path) -> bool:
    """Return whether stopped machines should be restarted: `sixstack down --servers` or a reboot of the host ended
    them.

    True until `clear_restart_mark`, so that an agent that ends before its first reconciliation does not lose it.
    """
    remembered = state / BOOT_ID
    rebooted = remembered.exists() and remembered.read_text().strip() != _boot_id()
    return rebooted or (state / RESTART_MARK).exists()


def clear_restart_mark(state: Path) -> None:
    """Record that machines were restarted: a machine that stops from now on was shut off by its guest."""
    (state / BOOT_ID).write_text(_boot_id())
    (state / RESTART_MARK).unlink(missing_ok=True)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
