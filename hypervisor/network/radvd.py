"""Router advertisements: one radvd for all segments of an installation on this host, started and reloaded by us."""

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

CHECK_SECONDS = 30


@dataclass(frozen=True)
class Advertisement:
    """What is announced on one bridge. Without a `gateway` its guests form addresses, but have no router."""

    interface: str
    prefixes: tuple[IPv6Network, ...]
    mtu: int
    source: IPv6Address
    dns_servers: tuple[IPv6Address, ...] = ()
    dns_search: tuple[str, ...] = ()
    gateway: bool = True
    routes: tuple[IPv6Network, ...] = ()
    """Prefixes that guests reach by this router (RFC 4191, route information)."""


def radvd_conf(advertisements: tuple[Advertisement, ...], timing: RouterTiming) -> str:
    """The whole configuration file."""
    return "".join(_interface(advertisement, timing) for advertisement in advertisements)


def _interface(advertisement: Advertisement, timing: RouterTiming) -> str:
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
    """Keeps radvd as the segments need it. It outlives us like a machine does, and is found again like one."""

    def __init__(self, paths: HostPaths, timing: RouterTiming) -> None:
        self.directory = paths.radvd
        self.configuration = paths.radvd / "radvd.conf"
        self.pid_file = paths.radvd / "pid"
        self.log = paths.radvd / "radvd.log"
        self.timing = timing
        self._lock = threading.Lock()
        self._refused: tuple[str, str, frozenset[str]] = ("", "", frozenset())
        """The last text that radvd refused, what was used instead, and the interfaces at fault: checked once."""

    def apply(self, advertisements: tuple[Advertisement, ...]) -> frozenset[str]:
        """Announce exactly these; with none there is no radvd. Returns the interfaces whose advertisement is refused.

        radvd exits when it is told to reload a file that it cannot parse, and one file serves all networks of the host.
        So a changed file is checked before it replaces the one in use. Of a refused interface the last advertisement
        that was accepted stays.
        """
        with self._lock:
            running = self.find_process()
            if not advertisements:
                self._end(running)
                return frozenset()
            wanted = {
                each.interface: _interface(each, self.timing)
                for each in sorted(advertisements, key=lambda each: each.interface)
            }
            private_directory(self.directory)
            known = self.configuration.read_text() if self.configuration.exists() else ""
            text, refused = self._checked(wanted, known)
            if not text:
                self._end(running)
                return refused
            if known != text:
                _rewrite(self.configuration, text.encode())
            if running is None:
                self._start()
            elif known != text:
                running.send(signal.SIGHUP)
            return refused

    def _checked(self, wanted: Mapping[str, str], known: str) -> tuple[str, frozenset[str]]:
        """The configuration to use, and the interfaces whose wanted block radvd refuses."""
        text = "".join(wanted.values())
        if text == self._refused[0]:
            return self._refused[1:]
        if text == known or _parses(text):
            return text, frozenset()
        self._refused = (text, *_without_faults(wanted, _blocks(known)))
        return self._refused[1:]

    def find_process(self) -> process.Process | None:
        """The running radvd."""
        return process.find(self.pid_file)

    def _start(self) -> None:
        """radvd gives up root, and then could not read a file below our private directory: so it gets the
        configuration as an open descriptor, which it opens anew at each reload."""
        with self.configuration.open("rb") as configuration:
            command = ["radvd", "--nodaemon", "--logmethod", "stderr"]
            command += ["--config", f"/proc/self/fd/{configuration.fileno()}"]
            command += ["--pidfile", str(self.directory / "radvd.pid"), *_account()]
            process.start(command, pid_file=self.pid_file, log=self.log, inherit=[configuration.fileno()])
        if process.wait_for_start(self.pid_file, 2) is None:
            words = process.log_tail(self.log)
            if "not found" in words:
                raise HostUnfit("radvd is missing: apt install radvd")
            log.error("radvd does not start: %s", words)
            raise LaunchFailed(NETWORK_FAILED)

    def _end(self, running: process.Process | None) -> None:
        if running is not None:
            helpers = running.children()
            running.end()
            for helper in helpers:  # radvd's privileged half ends when it notices that the other one is gone
                helper.wait(2)
        for path in (self.configuration, self.pid_file, self.log, self.directory / "radvd.pid"):
            path.unlink(missing_ok=True)
        if self.directory.is_dir():
            self.directory.rmdir()


def _account() -> list[str]:
    """The account that Debian's package makes for radvd, where there is one."""
    try:
        pwd.getpwnam("radvd")
    except KeyError:
        return []
    return ["--username", "radvd"]


def _without_faults(wanted: Mapping[str, str], known: Mapping[str, str]) -> tuple[str, frozenset[str]]:
    """The configuration without the blocks that radvd refuses, and the interfaces of these."""
    kept, refused = [], set()
    for interface, block in wanted.items():
        if _parses(block):
            kept.append(block)
            continue
        refused.add(interface)
        if interface in known and _parses(known[interface]):
            kept.append(known[interface])
    return "".join(kept), frozenset(refused)


def _blocks(text: str) -> dict[str, str]:
    """The blocks of a configuration that `radvd_conf` wrote, by interface."""
    blocks = re.split(r"(?m)^(?=interface )", text)
    return {block.split()[1]: block for block in blocks if block.startswith("interface ")}


def _parses(text: str) -> bool:
    """Whether radvd accepts the configuration. Its reasons go to the log. Raises HostUnfit without radvd."""
    command = ["radvd", "--configtest", "--logmethod", "stderr", "--config", "/dev/stdin"]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=CHECK_SECONDS)
    except FileNotFoundError:
        raise HostUnfit("radvd is missing: apt install radvd") from None
    except subprocess.TimeoutExpired:
        log.error("radvd did not check its configuration within %d s", CHECK_SECONDS)
        raise LaunchFailed(NETWORK_FAILED) from None
    if done.returncode != 0:
        log.error("radvd refuses a configuration: %s\n%s", done.stderr.strip(), text)
    return done.returncode == 0


def _rewrite(path: Path, content: bytes) -> None:
    """Write in place: radvd holds this very file open. It reads it only when told to, after this."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(descriptor, "wb") as file:
        file.truncate(0)
        file.write(content)
        os.fchmod(descriptor, 0o644)
