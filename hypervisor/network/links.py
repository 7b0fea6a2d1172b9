"""Network links of a host: a VXLAN device and a bridge for each segment, and a tap for each network interface.

The only module that uses pyroute2. Taps are not persistent: a tap exists as long as the qemu process that holds its
descriptor, so none is left behind. A bridge is the switch of a segment and carries the gateway's address:

    guest - tap - bridge - VXLAN - uplink - other hosts
                    |
                 the host itself (gateway, router and metadata addresses)

Each host is the gateway of its own guests (docs/decisions/0005-every-host-is-a-gateway.md). The gateway, router and
metadata addresses are the same on all hosts; the rules in antispoofing.py drop neighbour discovery for them between
hosts. A bridge also has addresses of its own, derived from its MAC, which are the source of all traffic that the host
itself originates.
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
# Address of the metadata service and source of router advertisements: a guest's router is the same on every host.
METADATA_ADDRESS = IPv6Address("fe80::a9fe:a9fe")
# Common prefix of the MACs of all bridges on all hosts; the rest is a hash of installation, host name and VNI.
BRIDGE_MAC_PREFIX = "0a:36"
INFINITE_LIFETIME = 0xFFFF_FFFF
ALL_ZERO_MAC = "00:00:00:00:00:00"
TUNSETIFF = 0x400454CA
TUNSETOWNER = 0x400454CC
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
SYSCTL = Path("/proc/sys/net/ipv6/conf")
# A token bucket must hold the largest packet: up to 64 KiB with segmentation offload.
MIN_BURST_BYTES = 66_000

# The bridge is a router on its own link: it sends router advertisements (radvd requires `forwarding`) and accepts none.
# The host's own interfaces are not changed: with `all.forwarding` a host that is configured by router advertisements
# loses its default route. Operators enable forwarding themselves or with `--forward`.
ROUTER_SYSCTLS = {
    "disable_ipv6": 0,
    "accept_ra": 0,
    "autoconf": 0,
    "accept_redirects": 0,
    "accept_dad": 0,
    "forwarding": 1,
}
# Bridge ports have no addresses, so the host is not reachable through them.
BRIDGE_PORT_SYSCTLS = {"disable_ipv6": 1}


class Links:
    """The links of one installation, whose number is part of every link's name.

    A netlink socket belongs to one thread, so one worker thread executes all operations in sequence.
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
        """`peers`: underlay addresses that get a copy of each flooded frame, for an underlay without multicast. May
        include this host, so that all hosts can share one list."""
        self.installation = installation
        self.uplink = uplink
        self.host_name = host_name
        self.peers = frozenset(map(str, peers))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="links")
        self._open_netlink = open_netlink
        self._netlink: IPRoute | None = None

    def bridge(self, vni: int) -> str:
        return f"6b{self.installation}-{vni:06x}"

    def vxlan(self, vni: int) -> str:
        return f"6v{self.installation}-{vni:06x}"

    def tap(self, port_id: str) -> str:
        return f"6t{self.installation}{port_id.replace('-', '')[:9]}"

    def ensure_segment(self, nic: NicSpec) -> tuple[int, int]:
        """Ensure VXLAN device, bridge and gateway address for the segment of this interface.

        Returns the indices of bridge and VXLAN device.
        """
        return self._submit(lambda ip: self._ensure_segment(ip, nic))

    def open_tap(self, nic: NicSpec, owner: int) -> int:
        """Create a tap on the segment's bridge. Returns its descriptor; the tap exists until the caller closes it."""
        return self._submit(lambda ip: self._open_tap(ip, nic, owner))

    def ensure_tap_plugged(self, nic: NicSpec) -> None:
        """Attach the tap of a running machine to its bridge, for example after the bridge was recreated."""

        def plug(ip: IPRoute) -> None:
            tap, bridge = _link_index(self.tap(nic.port_id)), _link_index(self.bridge(nic.vni))
            if tap is not None and bridge is not None and _master_index(ip, tap) != bridge:
                ip.link("set", index=tap, master=bridge, mtu=nic.mtu, state="up")

        self._submit(plug)

    def list_segments(self) -> dict[int, tuple[int, int]]:
        """List this installation's segments: VNI → indices of bridge and VXLAN device, 0 where one is missing."""
        bridges, vxlans = self.bridge(0)[:7], self.vxlan(0)[:7]

        def list_links(_: IPRoute) -> dict[int, tuple[int, int]]:
            names = {name: index for index, name in socket.if_nameindex()}
            vnis = {int(name[7:], 16) for name in names if name.startswith((bridges, vxlans))}
            return {vni: (names.get(self.bridge(vni), 0), names.get(self.vxlan(vni), 0)) for vni in vnis}

        return self._submit(list_links)

    def remove_segment(self, vni: int) -> None:
        """Remove bridge and VXLAN device; succeeds when they are already gone."""

        def remove(ip: IPRoute) -> None:
            for name in (self.vxlan(vni), self.bridge(vni)):
                index = _link_index(name)
                if index is not None:
                    ip.link("del", index=index)

        self._submit(remove)

    def underlay_address(self) -> IPv6Address:
        """The address by which other hosts reach this one. Raises HostUnfit when the uplink has none."""
        uplink = _link_index(self.uplink)
        if uplink is None:
            raise HostUnfit(f"The uplink {self.uplink} does not exist: choose another interface to reach other hosts.")
        return self._submit(lambda ip: self._find_underlay_address(ip, uplink))

    def tunnel_name(self) -> str:
        """The name of the tun interface between the kernel and tayga (NAT64)."""
        return f"6n{self.installation}"

    def ensure_tunnel(self, address: IPv6Address, destinations: Sequence[Destination]) -> bool:
        """Ensure the tun interface, for root only, with this address and routes to exactly these destinations.

        Returns whether it was created.
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

        return self._submit(ensure)

    def remove_tunnel(self) -> None:
        """Remove the tun interface and its routes; succeeds when it is already gone."""
        index = _link_index(self.tunnel_name())
        if index is not None:
            self._submit(lambda ip: ip.link("del", index=index))

    def close(self) -> None:
        """Close the netlink socket. The links stay."""
        if self._netlink is not None:
            self._thread.submit(self._netlink.close).result()
            self._netlink = None
        self._thread.shutdown()

    def _submit(self, work: Callable[[IPRoute], T]) -> T:
        def run() -> T:
            if self._netlink is None:
                self._netlink = self._open_netlink()
            return work(self._netlink)

        try:
            return self._thread.submit(run).result()
        except NetlinkError as error:
            if error.code in (errno.EPERM, errno.EACCES):
                raise HostUnfit("Creating network links needs root (CAP_NET_ADMIN): start Sixstack as root.") from error
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
                # With MLD snooping, neighbour discovery would depend on an MLD querier in the segment.
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
        # The kernel sends neighbour solicitations from the first link-local address. It must be the bridge's own:
        # replies to the shared address would be delivered to the host that the replying guest runs on.
        mac = self.bridge_mac(nic.vni)
        _add_address(ip, bridge, slaac_address(LINK_LOCAL, mac), 64)
        _add_address(ip, bridge, METADATA_ADDRESS, 128)
        if nic.gateway is not None:
            _add_address(ip, bridge, slaac_address(IPv6Interface((nic.gateway, 64)), mac), 64)
            # Deprecated (preferred lifetime 0): accepts traffic, but is no source of new connections of the host.
            _add_address(ip, bridge, nic.gateway, 64, preferred_lft=0, valid_lft=INFINITE_LIFETIME)
        return bridge, vxlan

    def _add_vxlan(self, ip: IPRoute, name: str, vni: int) -> int:
        uplink = _link_index(self.uplink)
        if uplink is None:
            raise HostUnfit(f"The uplink {self.uplink} does not exist: choose another interface to carry VXLAN.")
        multicast = {} if self.peers else {"vxlan_group6": str(IPv6Address(MULTICAST_BASE + vni))}
        try:
            index = _add_link(
                ip,
                name,
                kind="vxlan",
                vxlan_id=vni,
                vxlan_port=VXLAN_PORT,
                vxlan_link=uplink,
                vxlan_ttl=VXLAN_TTL,
                **(multicast or {"vxlan_local6": str(self._find_underlay_address(ip, uplink))}),
            )
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
            raise LaunchFailed(
                f"VNI {vni} is in use on {self.uplink} by another program: give this installation other VNIs."
            ) from error
        for peer in self._other_peers(ip):
            ip.fdb("append", ifindex=index, lladdr=ALL_ZERO_MAC, dst=peer)
        return index

    def _other_peers(self, ip: IPRoute) -> frozenset[str]:
        """The peers without this host's own addresses."""
        own = {address.get_attr("IFA_ADDRESS") for address in ip.get_addr(family=socket.AF_INET6)}
        return self.peers - own

    def _find_underlay_address(self, ip: IPRoute, uplink: int) -> IPv6Address:
        """The underlay address of this host: one of the peers if possible, global rather than link-local."""
        found = [address.get_attr("IFA_ADDRESS") for address in ip.get_addr(family=socket.AF_INET6, index=uplink)]
        addresses = [IPv6Address(address) for address in found]
        for address in sorted(addresses, key=lambda address: (str(address) not in self.peers, address.is_link_local)):
            return address
        raise HostUnfit(f"The uplink {self.uplink} has no IPv6 address to send VXLAN from.")

    def _matches_configuration(self, ip: IPRoute, vxlan: int) -> bool:
        """Whether a VXLAN device has the configured uplink and peers, which the operator may have changed."""
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
        return flooded == self._other_peers(ip)

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
                _limit_received(ip, index, nic.inbound)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def bridge_mac(self, vni: int) -> str:
        """The fixed MAC of a segment's bridge. Without one a bridge takes the lowest MAC of its ports."""
        digest = hashlib.sha256(f"{self.installation}-{self.host_name}-{vni}".encode()).digest()
        return f"{BRIDGE_MAC_PREFIX}:{digest[:4].hex(':')}"


def enable_forwarding() -> None:
    """Enable IPv6 and IPv4 forwarding between links; for IPv6 this is a switch for all links together.

    Links that accept router advertisements continue to do so (accept_ra=2); otherwise the kernel drops the default
    route that it learnt from them.
    """
    all_links = SYSCTL / "all" / "forwarding"
    if all_links.read_text().strip() == "0":
        for accept in SYSCTL.glob("*/accept_ra"):
            if accept.parent.name != "all" and accept.read_text().strip() == "1":
                accept.write_text("2")
        all_links.write_text("1")
    ipv4_forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    if ipv4_forwarding.read_text().strip() == "0":
        ipv4_forwarding.write_text("1")


def create_tap(name: str, owner: int) -> int:
    """Create a tap that exists as long as the returned descriptor is open. Only user `owner` may open it by name."""
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
        raise HostUnfit(
            f"The tap {name} cannot be created ({error.strerror}): this needs root (CAP_NET_ADMIN)."
        ) from error
    return descriptor


def set_sysctls(interface: str, values: dict[str, int]) -> None:
    """Set IPv6 sysctls of one interface. Missing ones are skipped: the kernel may have IPv6 disabled."""
    for key, value in values.items():
        try:
            (SYSCTL / interface / key).write_text(str(value))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostUnfit(f"{SYSCTL / interface / key} cannot be set: {error.strerror}.") from error


def _limit_received(ip: IPRoute, tap: int, rate: Rate) -> None:
    """Limit the rate at which the guest receives, with an HTB queue on the tap; removed with the tap."""
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
    """The index of a link, None when missing. Uses an ioctl, which costs a hundredth of a netlink request."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _master_index(ip: IPRoute, index: int) -> int | None:
    (link,) = ip.get_links(index)
    master: int | None = link.get_attr("IFLA_MASTER")
    return master


def _add_link(ip: IPRoute, name: str, **attributes: object) -> int:
    ip.link("add", ifname=name, **attributes)
    index = _link_index(name)
    if index is None:
        raise LaunchFailed(f"The link {name} disappeared right after it was created.")
    return index
