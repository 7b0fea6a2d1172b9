"""Router advertisements: configures and supervises the radvd process that serves all segments on a host."""

import logging
import os
import pwd
import re
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from hypervisor.api.addresses import format_address, format_prefix
from hypervisor.api.errors import NETWORK_FAILED, HostUnfit, LaunchFailed
from hypervisor.base import process
from hypervisor.base.config import RouterTiming
from hypervisor.base.paths import HostPaths, private_directory

log = logging.getLogger(__name__)

CHECK_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Advertisement:
    """The router advertisement of one bridge. Without `gateway`, guests form addresses but get no default router."""

    interface: str
    prefixes: tuple[IPv6Network, ...]
    mtu: int
    source: IPv6Address
    dns_servers: tuple[IPv6Address, ...] = ()
    dns_search: tuple[str, ...] = ()
    gateway: bool = True
    routes: tuple[IPv6Network, ...] = ()
    """Prefixes reachable through this router (RFC 4191, route information option)."""


def radvd_conf(advertisements: tuple[Advertisement, ...], timing: RouterTiming) -> str:
    """The configuration file of radvd for these advertisements."""
    return "".join(_interface_block(advertisement, timing) for advertisement in advertisements)


def _interface_block(advertisement: Advertisement, timing: RouterTiming) -> str:
    lines = [
        f"interface {advertisement.interface} {{",
        "  AdvSendAdvert on;",
        "  IgnoreIfMissing on;",
        f"  MinRtrAdvInterval {timing.min_interval};",
        f"  MaxRtrAdvInterval {timing.max_interval};",
        f"  MinDelayBetweenRAs {timing.min_delay};",
        f"  AdvDefaultLifetime {timing.default_lifetime if advertisement.gateway else 0};",
        f"  AdvLinkMTU {advertisement.mtu};",
        f"  AdvRASrcAddress {{ {format_address(advertisement.source)}; }};",
    ]
    for prefix in advertisement.prefixes:
        lines += [
            f"  prefix {format_prefix(prefix)} {{",
            "    AdvOnLink on;",
            "    AdvAutonomous on;",
            f"    AdvValidLifetime {timing.valid_lifetime};",
            f"    AdvPreferredLifetime {timing.preferred_lifetime};",
            "  };",
        ]
    for route in advertisement.routes:
        lines += [f"  route {format_prefix(route)} {{", f"    AdvRouteLifetime {timing.default_lifetime};", "  };"]
    if advertisement.dns_servers:
        servers = " ".join(map(format_address, advertisement.dns_servers))
        lines.append(f"  RDNSS {servers} {{ AdvRDNSSLifetime {timing.dns_lifetime}; }};")
    if advertisement.dns_search:
        lines.append(f"  DNSSL {' '.join(advertisement.dns_search)} {{ AdvDNSSLLifetime {timing.dns_lifetime}; }};")
    lines.append("};")
    return "\n".join(lines) + "\n"


class RouterAdvertiser:
    """Configures and runs radvd. The process keeps running while the agent restarts, and is found by its pid file."""

    def __init__(self, paths: HostPaths, timing: RouterTiming) -> None:
        self.directory = paths.radvd
        self.configuration = paths.radvd / "radvd.conf"
        self.pid_file = paths.radvd / "pid"
        self.log = paths.radvd / "radvd.log"
        self.timing = timing
        self._lock = threading.Lock()
        self._refused: tuple[str, str, frozenset[str]] = ("", "", frozenset())
        """The last configuration that radvd refused, its replacement and the refused interfaces (cached check)."""

    def apply(self, advertisements: tuple[Advertisement, ...]) -> frozenset[str]:
        """Advertise exactly these; without any, stop radvd. Returns the interfaces whose advertisement radvd refuses.

        radvd exits when it reloads a file that it cannot parse, and one file serves all networks of the host. A changed
        file is therefore checked before it replaces the one in use. A refused interface keeps its last accepted
        advertisement.
        """
        with self._lock:
            running = self.find_process()
            if not advertisements:
                self._stop(running)
                return frozenset()
            wanted = {
                advertisement.interface: _interface_block(advertisement, self.timing)
                for advertisement in sorted(advertisements, key=lambda advertisement: advertisement.interface)
            }
            private_directory(self.directory)
            current = self.configuration.read_text() if self.configuration.exists() else ""
            text, refused = self._check_configuration(wanted, current)
            if not text:
                self._stop(running)
                return refused
            if current != text:
                _overwrite(self.configuration, text.encode())
            if running is None:
                self._start()
            elif current != text:
                running.send(signal.SIGHUP)
            return refused

    def _check_configuration(self, wanted: Mapping[str, str], current: str) -> tuple[str, frozenset[str]]:
        """Check the blocks. Returns the configuration to use and the interfaces whose new block radvd refuses."""
        text = "".join(wanted.values())
        if text == self._refused[0]:
            return self._refused[1:]
        if text == current or _accepts(text):
            return text, frozenset()
        self._refused = (text, *_replace_refused(wanted, _split_blocks(current)))
        return self._refused[1:]

    def find_process(self) -> process.Process | None:
        """The running radvd process, or None."""
        return process.find(self.pid_file)

    def _start(self) -> None:
        """Start radvd with its configuration as an inherited descriptor.

        radvd drops privileges and then cannot read files below the private directory; it reopens the descriptor by
        its path in /proc at each reload.
        """
        with self.configuration.open("rb") as configuration:
            command = ["radvd", "--nodaemon", "--logmethod", "stderr"]
            command += ["--config", f"/proc/self/fd/{configuration.fileno()}"]
            command += ["--pidfile", str(self.directory / "radvd.pid"), *_account_options()]
            process.start(command, pid_file=self.pid_file, log=self.log, inherit=[configuration.fileno()])
        if process.wait_for_start(self.pid_file, 2) is None:
            log_text = process.log_tail(self.log)
            if "not found" in log_text:
                raise HostUnfit("radvd is missing: apt install radvd")
            log.error("radvd failed to start: %s", log_text)
            raise LaunchFailed(NETWORK_FAILED)

    def _stop(self, running: process.Process | None) -> None:
        if running is not None:
            children = running.children()
            running.end()
            for child in children:  # radvd's privileged process exits shortly after the main one
                child.wait(2)
        for path in (self.configuration, self.pid_file, self.log, self.directory / "radvd.pid"):
            path.unlink(missing_ok=True)
        if self.directory.is_dir():
            self.directory.rmdir()


def _account_options() -> list[str]:
    """Options for the account that Debian's package creates for radvd, if it exists."""
    try:
        pwd.getpwnam("radvd")
    except KeyError:
        return []
    return ["--username", "radvd"]


def _replace_refused(wanted: Mapping[str, str], current: Mapping[str, str]) -> tuple[str, frozenset[str]]:
    """Replace refused blocks by their last accepted version, if any. Returns the text and the refused interfaces."""
    accepted, refused = [], set()
    for interface, block in wanted.items():
        if _accepts(block):
            accepted.append(block)
            continue
        refused.add(interface)
        if interface in current and _accepts(current[interface]):
            accepted.append(current[interface])
    return "".join(accepted), frozenset(refused)


def _split_blocks(text: str) -> dict[str, str]:
    """Split a configuration written by `radvd_conf` into its blocks, by interface."""
    blocks = re.split(r"(?m)^(?=interface )", text)
    return {block.split()[1]: block for block in blocks if block.startswith("interface ")}


def _accepts(text: str) -> bool:
    """Whether radvd accepts the configuration; logs the reason if not. Raises HostUnfit when radvd is missing."""
    command = ["radvd", "--configtest", "--logmethod", "stderr", "--config", "/dev/stdin"]
    try:
        result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=CHECK_TIMEOUT_SECONDS)
    except FileNotFoundError:
        raise HostUnfit("radvd is missing: apt install radvd") from None
    except subprocess.TimeoutExpired:
        log.error("radvd --configtest did not finish within %d s", CHECK_TIMEOUT_SECONDS)
        raise LaunchFailed(NETWORK_FAILED) from None
    if result.returncode != 0:
        log.error("radvd rejects the configuration: %s\n%s", result.stderr.strip(), text)
    return result.returncode == 0


def _overwrite(path: Path, content: bytes) -> None:
    """Overwrite a file in place, as radvd holds it open; radvd reads it at the SIGHUP that follows."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(descriptor, "wb") as file:
        file.truncate(0)
        file.write(content)
        os.fchmod(descriptor, 0o644)
