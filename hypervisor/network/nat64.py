"""NAT64 and DNS64: supervises tayga (translation between IPv6 and IPv4) and unbound (synthesized AAAA records).

    guest -> bridge -> tun -> tayga -> tun -> masquerade -> uplink          prefix + a.b.c.d becomes a.b.c.d
    guest -> unbound on this host: a name without AAAA resolves to prefix + its A record

Both run on every host configured for NAT64 and serve its own guests. The resolver has the same address on all hosts of
an installation. Like radvd, both keep running while the agent restarts, and are found again by their pid files.
"""

import hashlib
import logging
import os
import pwd
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from hypervisor.api.addresses import format_address, format_prefix
from hypervisor.api.errors import NETWORK_FAILED, HostUnfit, LaunchFailed
from hypervisor.base import process
from hypervisor.base.config import Nat64, Nat64Mappings
from hypervisor.base.paths import HostPaths, private_directory
from hypervisor.network.links import Destination, Links, enable_forwarding

log = logging.getLogger(__name__)

TAYGA_ACCOUNT = "nobody"
PROGRAMS = {"tayga": "apt install tayga", "unbound": "apt install unbound"}


class Nat64Service:
    """NAT64 and DNS64 of one installation on this host. `wanted` None: remove processes and rules of an earlier run."""

    def __init__(
        self,
        installation: str,
        paths: HostPaths,
        links: Links,
        wanted: Nat64 | None,
        list_mappings: Callable[[], Nat64Mappings] = tuple,
    ) -> None:
        """`list_mappings` returns addresses that the API maps to guests of this host, not the operator's."""
        self.installation = installation
        self.directory = paths.state / "nat64"
        self.links = links
        self.wanted = wanted
        self.list_mappings = list_mappings
        self.table = f"sixstack_{installation}_nat64"
        digest = hashlib.sha256(f"nat64-{installation}".encode()).digest()
        self._ula = IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))
        self._lock = threading.Lock()

    @property
    def resolver(self) -> IPv6Address:
        """The address of the DNS64 resolver."""
        return self._ula[0x53]

    def check(self) -> None:
        """Raise HostUnfit with the package to install when a program is missing."""
        for program, remedy in PROGRAMS.items():
            if self.wanted is not None and shutil.which(program) is None:
                raise HostUnfit(f"{program} is missing, which NAT64 needs: {remedy}")

    def ensure(self) -> None:
        """Set up rules, tun interface, tayga and unbound. Restart a program only if its configuration has changed."""
        if self.wanted is None:
            self.close_down()
            return
        with self._lock:
            enable_forwarding()
            tunnel = self.links.tunnel_name()
            wanted = self._with_guest_mappings(self.wanted)
            routed: list[Destination] = [*(address for address, _ in wanted.mappings), wanted.pool]
            is_new = self.links.ensure_tunnel(self.resolver, [wanted.prefix, self._ula, *routed])
            _run_nft(nat64_rules(self.table, self.installation, tunnel, self.resolver, wanted.pool))
            private_directory(self.directory)
            # Both start as root and drop privileges themselves.
            lease_directory = self.directory / "leases"
            private_directory(lease_directory)
            os.chown(lease_directory, pwd.getpwnam(TAYGA_ACCOUNT).pw_uid, -1)
            options = ["--nodetach", "--user", TAYGA_ACCOUNT, "--config"]
            self._ensure_running(
                "tayga", tayga_conf(tunnel, self._ula[0x64], wanted, lease_directory), options, restart=is_new
            )
            self._ensure_running("unbound", unbound_conf(self.resolver, wanted), ["-d", "-c"], restart=is_new)

    def close_down(self) -> None:
        """Stop both programs; remove the tun interface, the rules and the state directory."""
        with self._lock:
            if not self.directory.exists():
                return
            for program in PROGRAMS:
                running = self.find_process(program)
                if running is not None:
                    running.end()
            self.links.remove_tunnel()
            for family in ("ip", "ip6"):
                _run_nft([f"add table {family} {self.table}", f"delete table {family} {self.table}"])
            shutil.rmtree(self.directory)

    def find_process(self, program: str) -> process.Process | None:
        """The running tayga or unbound process, or None."""
        return process.find(self.directory / f"{program}.pid")

    def _with_guest_mappings(self, wanted: Nat64) -> Nat64:
        """Add the mappings of guests; the operator's take precedence where they have one of the two addresses."""
        operator_addresses = {address for pair in wanted.mappings for address in pair}
        guest_mappings = [
            (outside, guest) for outside, guest in self.list_mappings() if not operator_addresses & {outside, guest}
        ]
        rejected = [str(outside) for outside, _ in guest_mappings if outside in wanted.pool]
        if rejected:
            log.error("Cannot map %s to guests: in the dynamic pool %s", ", ".join(rejected), wanted.pool)
        return replace(
            wanted,
            mappings=(*wanted.mappings, *((out, guest) for out, guest in guest_mappings if out not in wanted.pool)),
        )

    def _ensure_running(self, program: str, content: str, options: list[str], *, restart: bool) -> None:
        configuration, pid_file = self.directory / f"{program}.conf", self.directory / f"{program}.pid"
        running = self.find_process(program)
        current = configuration.read_text() if configuration.exists() else ""
        if running is not None:
            if current == content and not restart:
                return
            running.end()
        configuration.write_text(content)
        configuration.chmod(0o644)
        log_file = self.directory / f"{program}.log"
        with configuration.open("rb") as file:
            command = [program, *options, f"/proc/self/fd/{file.fileno()}"]
            process.start(command, pid_file=pid_file, log=log_file, inherit=[file.fileno()])
        found = process.wait_for_start(pid_file, 2)
        if found is None or found.wait(0.2):
            log.error("%s failed to start: %s", program, process.log_tail(log_file) or "see the system log")
            raise LaunchFailed(NETWORK_FAILED)


def tayga_conf(tunnel: str, own: IPv6Address, wanted: Nat64, lease_directory: Path) -> str:
    """The configuration file of tayga.

    tayga stores the assignment of pool addresses in `lease_directory`, so connections survive a restart.
    """
    lines = [
        f"tun-device {tunnel}",
        f"ipv4-addr {wanted.pool[1]}",
        f"ipv6-addr {format_address(own)}",
        f"prefix {format_prefix(wanted.prefix)}",
        f"dynamic-pool {wanted.pool}",
        f"data-dir {lease_directory}",
        *(f"map {address} {format_address(guest)}" for address, guest in wanted.mappings),
    ]
    return "\n".join(lines) + "\n"


def unbound_conf(resolver: IPv6Address, wanted: Nat64) -> str:
    """The configuration file of unbound. The packet filter restricts access to guests."""
    lines = [
        "server:",
        f"  interface: {format_address(resolver)}",
        "  access-control: ::/0 allow",
        f'  username: "{_unbound_account()}"',
        '  chroot: ""',
        '  directory: "/"',
        '  pidfile: ""',
        "  use-syslog: no",
        "  do-daemonize: no",
        "  hide-identity: yes",
        "  hide-version: yes",
        '  module-config: "dns64 iterator"',
        f"  dns64-prefix: {format_prefix(wanted.prefix)}",
        "remote-control:",
        "  control-enable: no",
    ]
    if wanted.forwarders:
        lines += ["forward-zone:", '  name: "."', *(f"  forward-addr: {server}" for server in wanted.forwarders)]
    return "\n".join(lines) + "\n"


def nat64_rules(table: str, installation: str, tunnel: str, resolver: IPv6Address, pool: IPv4Network) -> list[str]:
    """nft commands: masquerade pool addresses; restrict tayga and unbound to guests of this installation."""
    bridges, address = f"6b{installation}-*", format_address(resolver)
    return [
        f"add table ip {table}",
        f"add chain ip {table} leave {{ type nat hook postrouting priority 100; }}",
        f"flush chain ip {table} leave",
        f'add rule ip {table} leave ip saddr {pool} oifname != "{tunnel}" masquerade',
        f"add table ip6 {table}",
        f"add chain ip6 {table} enter {{ type filter hook input priority 0; }}",
        f"flush chain ip6 {table} enter",
        f'add rule ip6 {table} enter ip6 daddr {address} iifname != "lo" iifname != "{bridges}" counter drop',
        f"add chain ip6 {table} across {{ type filter hook forward priority 0; }}",
        f"flush chain ip6 {table} across",
        f'add rule ip6 {table} across oifname "{tunnel}" iifname != "{bridges}" counter drop',
    ]


def _unbound_account() -> str:
    """The account that Debian's package creates for unbound, or an empty string."""
    try:
        return pwd.getpwnam("unbound").pw_name
    except KeyError:
        return ""


def _run_nft(lines: list[str]) -> None:
    result = subprocess.run(
        ["nft", "-f", "-"], input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=30
    )
    if result.returncode != 0:
        log.error("Cannot apply the NAT64 rules: %s", result.stderr.strip())
        raise LaunchFailed(NETWORK_FAILED)
