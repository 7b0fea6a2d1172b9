"""Router advertisements: one radvd for all segments of an installation on this host, started and reloaded by us."""

import os
import pwd
import signal
import threading
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from hypervisor import process
from hypervisor.errors import HostUnfit, LaunchFailed
from hypervisor.paths import HostPaths, private_directory


@dataclass(frozen=True)
class Timing:
    """Seconds, as radvd.conf(5) names them. Guests ask when they boot, so unsolicited ones need not be frequent."""

    min_interval: int = 30
    max_interval: int = 100
    min_delay: int = 3
    default_lifetime: int = 1800
    dns_lifetime: int = 1800
    preferred_lifetime: int = 14_400
    valid_lifetime: int = 86_400


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


def radvd_conf(advertisements: tuple[Advertisement, ...], timing: Timing) -> str:
    """The whole configuration file."""
    return "".join(_interface(advertisement, timing) for advertisement in advertisements)


def _interface(advertisement: Advertisement, timing: Timing) -> str:
    lines = [
        f"interface {advertisement.interface} {{",
        "  AdvSendAdvert on;",
        "  IgnoreIfMissing on;",
        f"  MinRtrAdvInterval {timing.min_interval};",
        f"  MaxRtrAdvInterval {timing.max_interval};",
        f"  MinDelayBetweenRAs {timing.min_delay};",
        f"  AdvDefaultLifetime {timing.default_lifetime if advertisement.gateway else 0};",
        f"  AdvLinkMTU {advertisement.mtu};",
        f"  AdvRASrcAddress {{ {advertisement.source}; }};",
    ]
    for prefix in advertisement.prefixes:
        lines += [
            f"  prefix {prefix} {{",
            "    AdvOnLink on;",
            "    AdvAutonomous on;",
            f"    AdvValidLifetime {timing.valid_lifetime};",
            f"    AdvPreferredLifetime {timing.preferred_lifetime};",
            "  };",
        ]
    if advertisement.dns_servers:
        lines.append(
            f"  RDNSS {' '.join(map(str, advertisement.dns_servers))} {{ AdvRDNSSLifetime {timing.dns_lifetime}; }};"
        )
    if advertisement.dns_search:
        lines.append(f"  DNSSL {' '.join(advertisement.dns_search)} {{ AdvDNSSLLifetime {timing.dns_lifetime}; }};")
    lines.append("};")
    return "\n".join(lines) + "\n"


class RouterAdvertiser:
    """Keeps radvd as the segments need it. It outlives us like a machine does, and is found again like one."""

    def __init__(self, paths: HostPaths, timing: Timing) -> None:
        self.directory = paths.radvd
        self.configuration = paths.radvd / "radvd.conf"
        self.pid_file = paths.radvd / "pid"
        self.log = paths.radvd / "radvd.log"
        self.timing = timing
        self._lock = threading.Lock()

    def apply(self, advertisements: tuple[Advertisement, ...]) -> None:
        """Announce exactly these. With none there is no radvd."""
        with self._lock:
            running = self.running()
            if not advertisements:
                self._end(running)
                return
            text = radvd_conf(tuple(sorted(advertisements, key=lambda each: each.interface)), self.timing).encode()
            private_directory(self.directory)
            known = self.configuration.read_bytes() if self.configuration.exists() else b""
            if known != text:
                _rewrite(self.configuration, text)
            if running is None:
                self._start()
            elif known != text:
                running.send(signal.SIGHUP)

    def running(self) -> process.Process | None:
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
        if process.find_soon(self.pid_file, 2) is None:
            words = process.log_tail(self.log)
            if "not found" in words:
                raise HostUnfit("radvd is missing: apt install radvd")
            raise LaunchFailed(f"radvd does not start: {words}")

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


def _rewrite(path: Path, content: bytes) -> None:
    """Write in place: radvd holds this very file open. It reads it only when told to, after this."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(descriptor, "wb") as file:
        file.truncate(0)
        file.write(content)
        os.fchmod(descriptor, 0o644)
