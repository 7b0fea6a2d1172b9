"""Test network: one network namespace per computer, connected by an Ethernet segment with multicast.

    root namespace (control plane, external network) ── wire ── h1, h2, h3

Namespaces can be used with `ip netns exec` and are removed when the context ends.
"""

import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path


def ip(*words: object) -> str:
    """Run the `ip` command and return its output."""
    return subprocess.run(["ip", *map(str, words)], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Computer:
    """A network namespace with an interface `eth0`."""

    namespace: str
    address: IPv6Address

    def command(self, *words: object) -> list[str]:
        """Return the command line that runs a command in the namespace."""
        return ["ip", "netns", "exec", self.namespace, *map(str, words)]

    def run(self, *words: object) -> str:
        """Run a command in the namespace and return its output."""
        return subprocess.run(self.command(*words), check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Wire:
    """The Ethernet segment with its prefix, computers, and the address of the root namespace."""

    name: str
    prefix: IPv6Network
    here: IPv6Address
    computers: dict[str, Computer]

    def route(self, destination: object, computer: str | None) -> None:
        """Route the destination by that computer; None deletes the route."""
        if computer is None:
            ip("route", "del", destination, "dev", self.name)
        else:
            ip("route", "replace", destination, "via", self.computers[computer].address, "dev", self.name)


@contextmanager
def wire(names: Sequence[str]) -> Iterator[Wire]:
    """Create and connect the namespaces; their default route is the root namespace."""
    tag = secrets.token_hex(2)
    prefix = IPv6Network((0xFD << 120 | secrets.randbits(40) << 80, 64))
    core, here = f"sx{tag}-wire", f"sx{tag}"
    with ExitStack() as stack:
        _namespace(stack, core)
        ip("-n", core, "link", "add", "wire", "type", "bridge", "mcast_snooping", "0")
        ip("-n", core, "link", "set", "wire", "up")
        ip("link", "add", here, "type", "veth", "peer", "name", "here", "netns", core)
        stack.callback(subprocess.run, ["ip", "link", "del", here], capture_output=True)
        ip("-n", core, "link", "set", "here", "master", "wire", "up")
        ip("link", "set", here, "up")
        ip("address", "add", f"{prefix[1]}/64", "dev", here, "nodad")
        made = {}
        for number, name in enumerate(names, 1):
            computer = Computer(f"sx{tag}-{name}", prefix[0x10 + number])
            _namespace(stack, computer.namespace)
            # A fixed MAC address, as on hardware.
            card = f"02:00:{tag[:2]}:{tag[2:]}:00:{number:02x}"
            peer = ["peer", "name", "eth0", "address", card, "netns", computer.namespace]
            ip("-n", core, "link", "add", f"to{number}", "type", "veth", *peer)
            ip("-n", core, "link", "set", f"to{number}", "master", "wire", "up")
            ip("-n", computer.namespace, "link", "set", "eth0", "up")
            ip("-n", computer.namespace, "address", "add", f"{computer.address}/64", "dev", "eth0", "nodad")
            ip("-n", computer.namespace, "route", "add", "default", "via", prefix[1])
            made[name] = computer
        yield Wire(here, prefix, prefix[1], made)


def _namespace(stack: ExitStack, name: str) -> None:
    ip("netns", "add", name)
    stack.callback(subprocess.run, ["ip", "netns", "del", name], capture_output=True)
    ip("-n", name, "link", "set", "lo", "up")
    if not Path(f"/run/netns/{name}").exists():
        raise AssertionError(f"the namespace {name} was not created")
