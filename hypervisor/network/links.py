"""Links of this host: a VXLAN device and a bridge for each segment, and a tap for each network interface.

The only user of pyroute2. Taps are not persistent: one exists exactly as long as the qemu that holds its descriptor, so
there is none to be left behind. A bridge is a segment's switch and carries the gateway's address:

    guest - tap - bridge - VXLAN - uplink - other hosts
                    |
                 the host itself (gateway, router and metadata addresses)

Each host with a bridge in a segment is its guests' gateway (docs/decisions/0005-every-host-is-a-gateway.md): these
addresses are the same on all hosts, and rules in spoofing.py keep a host from hearing of them from another one. Beside
them a bridge has addresses of its own, made from its MAC, which the host uses whenever it is the one who begins.
"""

import errno
import fcntl
import hashlib
import os
import socket
import struct
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_network
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from hypervisor.api.errors import HostUnfit, LaunchFailed
from hypervisor.api.spec import NicSpec, Rate
from hypervisor.base.addresses import slaac_address
from hypervisor.base.host_facts import TUN_DEVICE
from hypervisor.network.host_filter import VXLAN_PORT
from hypervisor.network.host_prefixes import refuse_host_prefix

T = TypeVar("T")
Destination = IPv4Address | IPv4Network | IPv6Address | IPv6Network

VXLAN_TTL = 5
MULTICAST_BASE = int(IPv6Address("ff05::"))
IFA_F_NODAD = 0x02
RTPROT_STATIC = 4
ADDRESS_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
LINK_LOCAL = IPv6Interface("fe80::/64")
# Where guests find metadata; also who advertises routes, so that a guest's router is the same on whatever host it runs.
METADATA = IPv6Address("fe80::a9fe:a9fe")
# How the MACs of all bridges of all hosts begin; the rest is worked out from the host's name and the segment.
BRIDGE_MAC_PREFIX = "0a:36"
INFINITE_LIFETIME = 0xFFFF_FFFF
ALL_ZERO_MAC = "00:00:00:00:00:00"
TUNSETIFF = 0x400454CA
TUNSETOWNER = 0x400454CC
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
SYSCTL = Path("/proc/sys/net/ipv6/conf")
# The kernel hands over up to 64 KiB as one packet, so a bucket must hold that much.
MIN_BURST_BYTES = 66_000

# The bridge takes part in IPv6 as a router on this link only: it sends router advertisements (radvd looks at
# `forwarding`) and believes none. The host's own interfaces stay as they are: `all.forwarding` would make a host that
# got its address by router advertisement forget its default route. Its operator turns it on when there is an uplink
# to forward to.
ROUTER_SYSCTLS = {
    "disable_ipv6": 0,
    "accept_ra": 0,
    "autoconf": 0,
    "accept_redirects": 0,
    "accept_dad": 0,
    "forwarding": 1,
}
# Ports of the bridge have no address of their own, so nobody reaches the host through one.
BRIDGE_PORT_SYSCTLS = {"disable_ipv6": 1}


class Links:
    """The links of one installation; the installation's number is in every name, so two never touch each other's.

    A netlink socket belongs to one thread, so one thread does all of it, one thing at a time.
    """

    def __init__(
        self,
        installation: str,
        uplink: str,
        open_netlink: Callable[[], IPRoute] = IPRoute,
        *,
        host_name: str = os.uname().nodename,
        peers: Collection[IPv6Address] = (),
    ) -> None:
        """`peers`: what the other hosts are sent a copy of each flooded frame at, where the underlay has no multicast.
        It may name this host too, so that all hosts can have the same list."""
        self.installation = installation
        self.uplink = uplink
        self.host_name = host_name
        self.peers = frozenset(map(str, peers))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="links")
        self._open_netlink = open_netlink
        self._opened: IPRoute | None = None

    def bridge(self, vni: int) -> str:
        return f"6b{self.installation}-{vni:06x}"

    def vxlan(self, vni: int) -> str:
        return f"6v{self.installation}-{vni:06x}"

    def tap(self, port_id: str) -> str:
        return f"6t{self.installation}{port_id.replace('-', '')[:9]}"

    def ensure_segment(self, nic: NicSpec) -> tuple[int, int]:
        """VXLAN device, bridge and the gateway's address for the segment of this interface.

        Returns the indices of bridge and VXLAN device.
        """
        return self._do(lambda ip: self._ensure_segment(ip, nic))

    def open_tap(self, nic: NicSpec, owner: int) -> int:
        """A tap on the segment's bridge; the caller owns the descriptor, and with it the life of the tap."""
        return self._do(lambda ip: self._open_tap(ip, nic, owner))

    def ensure_tap_plugged(self, nic: NicSpec) -> None:
        """The tap of a running machine is on its bridge, also when the bridge had to be made anew."""

        def plug(ip: IPRoute) -> None:
            tap, bridge = _link_index(self.tap(nic.port_id)), _link_index(self.bridge(nic.vni))
            if tap is not None and bridge is not None and _master(ip, tap) != bridge:
                ip.link("set", index=tap, master=bridge, mtu=nic.mtu, state="up")

        self._do(plug)

    def list_segments(self) -> dict[int, tuple[int, int]]:
        """What this installation has here: VNI → indices of bridge and VXLAN device, 0 for one that is missing."""
        bridges, vxlans = self.bridge(0)[:7], self.vxlan(0)[:7]

        def look(_: IPRoute) -> dict[int, tuple[int, int]]:
            names = {name: index for index, name in socket.if_nameindex()}
            vnis = {int(name[7:], 16) for name in names if name.startswith((bridges, vxlans))}
            return {vni: (names.get(self.bridge(vni), 0), names.get(self.vxlan(vni), 0)) for vni in vnis}

        return self._do(look)

    def remove_segment(self, vni: int) -> None:
        """Bridge and VXLAN device go; content if they are gone."""

        def remove(ip: IPRoute) -> None:
            for name in (self.vxlan(vni), self.bridge(vni)):
                index = _link_index(name)
                if index is not None:
                    ip.link("del", index=index)

        self._do(remove)

    def underlay_address(self) -> IPv6Address:
        """By which other hosts reach this one. Raises HostUnfit when the uplink has none."""
        uplink = _link_index(self.uplink)
        if uplink is None:
            raise HostUnfit(f"There is no interface {self.uplink} to reach other hosts by: choose another uplink.")
        return self._do(lambda ip: self._own_address(ip, uplink))

    def tunnel_name(self) -> str:
        """The name of the link to the translator between IPv6 and IPv4."""
        return f"6n{self.installation}"

    def ensure_tunnel(self, address: IPv6Address, destinations: Sequence[Destination]) -> bool:
        """A tun that only root may open, with this address, and with routes to exactly these destinations.

        True when it had to be made.
        """

        def ensure(ip: IPRoute) -> bool:
            index, made = _link_index(self.tunnel_name()), False
            if index is None:
                index, made = _add_link(ip, self.tunnel_name(), kind="tuntap", mode="tun", uid=0), True
                set_sysctls(self.tunnel_name(), {"disable_ipv6": 0, "accept_ra": 0, "autoconf": 0, "forwarding": 1})
                ip.link("set", index=index, state="up")
            _add_address(ip, index, address, 128)
            wanted = {
                str(ip_network(destination)): ADDRESS_FAMILIES[destination.version] for destination in destinations
            }
            for destination, family in wanted.items():
                ip.route("replace", dst=destination, oif=index, family=family)
            for family in ADDRESS_FAMILIES.values():
                for route in ip.get_routes(family=family, oif=index):
                    destination = f"{route.get_attr('RTA_DST')}/{route['dst_len']}"
                    if route["proto"] == RTPROT_STATIC and destination not in wanted:
                        ip.route("del", dst=destination, oif=index, family=family)
            return made

        return self._do(ensure)

    def remove_tunnel(self) -> None:
        """It goes, and its routes with it; content if it is gone."""
        index = _link_index(self.tunnel_name())
        if index is not None:
            self._do(lambda ip: ip.link("del", index=index))

    def close(self) -> None:
        """Close the socket. The links stay."""
        if self._opened is not None:
            self._thread.submit(self._opened.close).result()
            self._opened = None
        self._thread.shutdown()

    def _do(self, work: Callable[[IPRoute], T]) -> T:
        def run() -> T:
            if self._opened is None:
                self._opened = self._open_netlink()
            return work(self._opened)

        try:
            return self._thread.submit(run).result()
        except NetlinkError as error:
            if error.code in (errno.EPERM, errno.EACCES):
                raise HostUnfit("Making network links needs root (CAP_NET_ADMIN): start Sixstack as root.") from error
            raise LaunchFailed(f"The host's network cannot be set up: {os.strerror(error.code)}.") from error

    def _ensure_segment(self, ip: IPRoute, nic: NicSpec) -> tuple[int, int]:
        bridge_name, vxlan_name = self.bridge(nic.vni), self.vxlan(nic.vni)
        bridge = _link_index(bridge_name)
        if bridge is None:
            refuse_host_prefix(nic, self.installation, self.peers)
            bridge = _add_link(
                ip,
                bridge_name,
                kind="bridge",
                address=self.bridge_mac(nic.vni),
                br_stp_state=0,
                br_forward_delay=0,
                # Neighbour discovery must not depend on somebody sending multicast listener queries.
                br_mcast_snooping=0,
            )
        set_sysctls(bridge_name, ROUTER_SYSCTLS)
        vxlan = _link_index(vxlan_name)
        if vxlan is not None and not self._matches_configuration(ip, vxlan):
            ip.link("del", index=vxlan)
            vxlan = None
        if vxlan is None:
            vxlan = self._add_vxlan(ip, vxlan_name, nic.vni)
        set_sysctls(vxlan_name, BRIDGE_PORT_SYSCTLS)
        try:
            ip.link("set", index=vxlan, master=bridge, mtu=nic.mtu, state="up")
        except NetlinkError as error:
            if error.code != errno.EINVAL:
                raise
            raise LaunchFailed(
                f"The network's MTU of {nic.mtu} does not fit through {self.uplink}: VXLAN takes 70 bytes."
            ) from error
        ip.link("set", index=bridge, mtu=nic.mtu, state="up")
        # The first link-local address is the one the kernel looks for neighbours with: that must be the host's own, as
        # answers to a shared one would go to whichever host is nearest to the guest.
        mac = self.bridge_mac(nic.vni)
        _add_address(ip, bridge, slaac_address(LINK_LOCAL, mac), 64)
        _add_address(ip, bridge, METADATA, 128)
        if nic.gateway is not None:
            _add_address(ip, bridge, slaac_address(IPv6Interface((nic.gateway, 64)), mac), 64)
            # Deprecated: it is answered from, but nothing of the host's own begins with it.
            _add_address(ip, bridge, nic.gateway, 64, preferred_lft=0, valid_lft=INFINITE_LIFETIME)
        return bridge, vxlan

    def _add_vxlan(self, ip: IPRoute, name: str, vni: int) -> int:
        uplink = _link_index(self.uplink)
        if uplink is None:
            raise HostUnfit(f"There is no interface {self.uplink} to carry VXLAN: choose another uplink.")
        how = {} if self.peers else {"vxlan_group6": str(IPv6Address(MULTICAST_BASE + vni))}
        try:
            index = _add_link(
                ip,
                name,
                kind="vxlan",
                vxlan_id=vni,
                vxlan_port=VXLAN_PORT,
                vxlan_link=uplink,
                vxlan_ttl=VXLAN_TTL,
                **(how or {"vxlan_local6": str(self._own_address(ip, uplink))}),
            )
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
            raise LaunchFailed(
                f"The segment {vni} is taken on {self.uplink} by somebody else: give this installation other VNIs."
            ) from error
        for peer in self._others(ip):
            ip.fdb("append", ifindex=index, lladdr=ALL_ZERO_MAC, dst=peer)
        return index

    def _others(self, ip: IPRoute) -> frozenset[str]:
        """The peers that are not this host."""
        own = {address.get_attr("IFA_ADDRESS") for address in ip.get_addr(family=socket.AF_INET6)}
        return self.peers - own

    def _own_address(self, ip: IPRoute, uplink: int) -> IPv6Address:
        """By which the other hosts know this one: it is in their list of peers."""
        found = [address.get_attr("IFA_ADDRESS") for address in ip.get_addr(family=socket.AF_INET6, index=uplink)]
        known = [IPv6Address(address) for address in found]
        for address in sorted(known, key=lambda address: (str(address) not in self.peers, address.is_link_local)):
            return address
        raise HostUnfit(f"The uplink {self.uplink} has no IPv6 address to send VXLAN from.")

    def _matches_configuration(self, ip: IPRoute, vxlan: int) -> bool:
        """Whether a VXLAN device goes where it should: the operator may have changed uplink or peers."""
        (link,) = ip.get_links(vxlan)
        made = link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
        if made.get_attr("IFLA_VXLAN_LINK") != _link_index(self.uplink):
            return False
        has_group = made.get_attr("IFLA_VXLAN_GROUP6") is not None
        if has_group or not self.peers:
            return has_group and not self.peers
        entries = ip.get_neighbours(family=socket.AF_BRIDGE, ifindex=vxlan)
        flooded = {
            entry.get_attr("NDA_DST")
            for entry in entries
            if entry.get_attr("NDA_LLADDR") == ALL_ZERO_MAC and entry["ifindex"] == vxlan
        }
        return flooded == self._others(ip)

    def _open_tap(self, ip: IPRoute, nic: NicSpec, owner: int) -> int:
        bridge = _link_index(self.bridge(nic.vni))
        if bridge is None:
            raise LaunchFailed(f"The bridge of segment {nic.vni} is gone.")
        name = self.tap(nic.port_id)
        descriptor = create_tap(name, owner)
        try:
            set_sysctls(name, BRIDGE_PORT_SYSCTLS)
            index = _link_index(name)
            ip.link("set", index=index, master=bridge, mtu=nic.mtu, state="up")
            if index is not None and nic.inbound is not None:
                _shape_ingress(ip, index, nic.inbound)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def bridge_mac(self, vni: int) -> str:
        """Fixed, for otherwise a bridge takes the lowest MAC of its ports, and its link-local address with it."""
        digest = hashlib.sha256(f"{self.installation}-{self.host_name}-{vni}".encode()).digest()
        return f"{BRIDGE_MAC_PREFIX}:{digest[:4].hex(':')}"


def enable_forwarding() -> None:
    """Let the kernel pass packets on between links: IPv6 can only do so for all links together.

    Links that listen to a router go on listening: a kernel that forwards would otherwise drop its default route.
    """
    everywhere = SYSCTL / "all" / "forwarding"
    if everywhere.read_text().strip() == "0":
        for accept in SYSCTL.glob("*/accept_ra"):
            if accept.parent.name != "all" and accept.read_text().strip() == "1":
                accept.write_text("2")
        everywhere.write_text("1")
    legacy = Path("/proc/sys/net/ipv4/ip_forward")
    if legacy.read_text().strip() == "0":
        legacy.write_text("1")


def create_tap(name: str, owner: int) -> int:
    """A tap that lives as long as the descriptor. Only `owner` may open it as well, and only with that name."""
    try:
        descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostUnfit(f"{TUN_DEVICE} cannot be opened ({error.strerror}): start as root, `modprobe tun`.") from error
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(descriptor, TUNSETOWNER, owner)
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EBUSY:
            raise LaunchFailed(f"The tap {name} is in use by another process.") from error
        raise HostUnfit(f"A tap cannot be made ({error.strerror}): this needs root (CAP_NET_ADMIN).") from error
    return descriptor


def set_sysctls(interface: str, values: dict[str, int]) -> None:
    """Set IPv6 switches of one interface. Where the kernel has IPv6 turned off, there is nothing to set."""
    for key, value in values.items():
        try:
            (SYSCTL / interface / key).write_text(str(value))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostUnfit(f"{SYSCTL / interface / key} cannot be set: {error.strerror}.") from error


def _shape_ingress(ip: IPRoute, tap: int, rate: Rate) -> None:
    """What goes to the guest waits its turn; it ends with the tap."""
    peak = max(rate.average, rate.peak)
    buckets = {
        "burst": max(rate.burst, MIN_BURST_BYTES, rate.average // 100),
        "cburst": max(MIN_BURST_BYTES, peak // 100),
    }
    try:
        ip.tc("add", "htb", tap, 0x10000, default=1)
        ip.tc("add-class", "htb", tap, 0x10001, parent=0x10000, rate=rate.average, ceil=peak, **buckets)
    except NetlinkError as error:
        if error.code in (errno.EPERM, errno.EACCES):
            raise
        raise LaunchFailed("This host's kernel cannot limit what guests receive (sch_htb is missing).") from error


def _add_address(ip: IPRoute, index: int, address: IPv6Address, prefix_length: int, **more: int) -> None:
    try:
        ip.addr("add", index=index, address=str(address), prefixlen=prefix_length, flags=IFA_F_NODAD, **more)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


def _link_index(name: str) -> int | None:
    """Asked without netlink: a hundred times cheaper."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _master(ip: IPRoute, index: int) -> int | None:
    (link,) = ip.get_links(index)
    master: int | None = link.get_attr("IFLA_MASTER")
    return master


def _add_link(ip: IPRoute, name: str, **members: object) -> int:
    ip.link("add", ifname=name, **members)
    index = _link_index(name)
    if index is None:
        raise LaunchFailed(f"The link {name} vanished as soon as it was made.")
    return index
