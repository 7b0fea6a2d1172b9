"""The way to IPv4: tayga translates between IPv6 and IPv4 (NAT64), unbound gives IPv4 servers IPv6 addresses (DNS64).

    guest -> bridge -> tun -> tayga -> tun -> masquerade -> uplink          prefix + a.b.c.d becomes a.b.c.d
    guest -> unbound on this host: a name without AAAA is answered with prefix + its A

Both run on every host that is told to, for its own guests; the resolver has the same address on all hosts of an
installation. Like radvd they outlive us and are found again.
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

NOBODY = "nobody"
PROGRAMS = {"tayga": "apt install tayga", "unbound": "apt install unbound"}


class Nat64Service:
    """NAT64 and DNS64 of one installation on this host; `wanted` None takes away what an earlier run has left."""

    def __init__(
        self,
        installation: str,
        paths: HostPaths,
        links: Links,
        wanted: Nat64 | None,
        mapped: Callable[[], Nat64Mappings] = tuple,
    ) -> None:
        """`mapped`: the addresses of this host's guests that the control plane has mapped, beside the operator's."""
        self.installation = installation
        self.directory = paths.state / "nat64"
        self.links = links
        self.wanted = wanted
        self.mapped = mapped
        self.table = f"sixstack_{installation}_nat64"
        digest = hashlib.sha256(f"nat64-{installation}".encode()).digest()
        self._own = IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))
        self._lock = threading.Lock()

    @property
    def resolver(self) -> IPv6Address:
        """Where guests find DNS64."""
        return self._own[0x53]

    def check(self) -> None:
        """Raise HostUnfit, saying what to do, when a program is missing."""
        for program, remedy in PROGRAMS.items():
            if self.wanted is not None and shutil.which(program) is None:
                raise HostUnfit(f"{program} is missing, which NAT64 needs: {remedy}")

    def ensure(self) -> None:
        """Both run as they should. One that runs already goes on undisturbed, unless its configuration has changed."""
        if self.wanted is None:
            self.close_down()
            return
        with self._lock:
            enable_forwarding()
            tunnel = self.links.tunnel_name()
            wanted = self._wanted(self.wanted)
            ours: list[Destination] = [*(address for address, _ in wanted.mappings), wanted.pool]
            made = self.links.ensure_tunnel(self.resolver, [wanted.prefix, self._own, *ours])
            _nft(nat64_rules(self.table, self.installation, tunnel, self.resolver, wanted.pool))
            private_directory(self.directory)
            # Both need root to begin with, and give it up by themselves.
            remembered = self.directory / "leases"
            private_directory(remembered)
            os.chown(remembered, pwd.getpwnam(NOBODY).pw_uid, -1)
            options = ["--nodetach", "--user", NOBODY, "--config"]
            self._keep("tayga", tayga_conf(tunnel, self._own[0x64], wanted, remembered), options, again=made)
            self._keep("unbound", unbound_conf(self.resolver, wanted), ["-d", "-c"], again=made)

    def close_down(self) -> None:
        """Nothing of it is left."""
        with self._lock:
            if not self.directory.exists():
                return
            for program in PROGRAMS:
                running = self.find_process(program)
                if running is not None:
                    running.end()
            self.links.remove_tunnel()
            for family in ("ip", "ip6"):
                _nft([f"add table {family} {self.table}", f"delete table {family} {self.table}"])
            shutil.rmtree(self.directory)

    def find_process(self, program: str) -> process.Process | None:
        """tayga or unbound, if it runs."""
        return process.find(self.directory / f"{program}.pid")

    def _wanted(self, wanted: Nat64) -> Nat64:
        """With the guests' own mappings; where the operator has mapped one of the two addresses, that stands."""
        taken = {address for pair in wanted.mappings for address in pair}
        more = [(outside, guest) for outside, guest in self.mapped() if not taken & {outside, guest}]
        lost = [str(outside) for outside, _ in more if outside in wanted.pool]
        if lost:
            log.error("%s cannot be mapped to guests: the pool %s has them", ", ".join(lost), wanted.pool)
        return replace(
            wanted, mappings=(*wanted.mappings, *((out, guest) for out, guest in more if out not in wanted.pool))
        )

    def _keep(self, program: str, text: str, options: list[str], *, again: bool) -> None:
        configuration, pid_file = self.directory / f"{program}.conf", self.directory / f"{program}.pid"
        running = self.find_process(program)
        known = configuration.read_text() if configuration.exists() else ""
        if running is not None:
            if known == text and not again:
                return
            running.end()
        configuration.write_text(text)
        configuration.chmod(0o644)
        logged = self.directory / f"{program}.log"
        with configuration.open("rb") as file:
            command = [program, *options, f"/proc/self/fd/{file.fileno()}"]
            process.start(command, pid_file=pid_file, log=logged, inherit=[file.fileno()])
        found = process.wait_for_start(pid_file, 2)
        if found is None or found.wait(0.2):
            log.error("%s does not start: %s", program, process.log_tail(logged) or "the system's log may say why")
            raise LaunchFailed(NETWORK_FAILED)


def tayga_conf(tunnel: str, own: IPv6Address, wanted: Nat64, remembered: Path) -> str:
    """The configuration of tayga. In the directory it remembers who has which pool address, so that connections
    outlive it when another mapping makes it start anew."""
    lines = [
        f"tun-device {tunnel}",
        f"ipv4-addr {wanted.pool[1]}",
        f"ipv6-addr {format_address(own)}",
        f"prefix {format_prefix(wanted.prefix)}",
        f"dynamic-pool {wanted.pool}",
        f"data-dir {remembered}",
        *(f"map {address} {format_address(guest)}" for address, guest in wanted.mappings),
    ]
    return "\n".join(lines) + "\n"


def unbound_conf(resolver: IPv6Address, wanted: Nat64) -> str:
    """The configuration of unbound. Who may ask is said by the packet filter."""
    lines = [
        "server:",
        f"  interface: {format_address(resolver)}",
        "  access-control: ::/0 allow",
        f'  username: "{_account()}"',
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
    """Pool addresses leave as the host's own; translator and resolver serve our guests and nobody else."""
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


def _account() -> str:
    """The account that Debian's package makes for unbound, where there is one."""
    try:
        return pwd.getpwnam("unbound").pw_name
    except KeyError:
        return ""


def _nft(lines: list[str]) -> None:
    done = subprocess.run(["nft", "-f", "-"], input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        log.error("The rules of NAT64 cannot be set: %s", done.stderr.strip())
        raise LaunchFailed(NETWORK_FAILED)
