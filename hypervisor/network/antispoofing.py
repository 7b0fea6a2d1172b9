"""Anti-spoofing: nftables rules that limit each tap to its own MAC and addresses.

Each installation has one table in the bridge family. A verdict map sends every frame received from a tap to the tap's
own chain, so the cost does not grow with the number of guests:

    frame from a tap -> pre -> map taps -> chain of the tap: accept, or count and drop

A guest may use its own MAC, and as source addresses its EUI-64 link-local address and the addresses assigned to its
port; it may advertise only these in neighbour discovery. The owner of its network may allow additional pairs of MAC and
address (allowed address pairs); the metadata service does not identify guests by these. The rules are in place before
the tap exists.

Frames from other hosts have passed the rules there. Dropped on arrival are only frames that concern a host and its own
guests: router advertisements, and neighbour discovery for the addresses that all hosts share (gateways and metadata).
Frames from other hosts with the MAC of a guest that runs on this host are dropped too: the bridge would learn the MAC
on the wrong port.

Traffic from guests to the host itself is filtered by the table of host_filter.py, which is written in the same
transaction.

Guests of a network without a gateway cannot be routed even if they configure a route by hand: the host accepts only
link-local and multicast destinations from them, such as requests to the metadata service.
"""

import json
import logging
import subprocess
import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, IPv6Interface, IPv6Network, collapse_addresses
from typing import Any

from hypervisor.api.addresses import format_address, format_prefix
from hypervisor.api.errors import NETWORK_FAILED, HostUnfit, LaunchFailed
from hypervisor.api.spec import NicSpec, Rate
from hypervisor.base.addresses import slaac_address
from hypervisor.network.host_filter import HostFilter
from hypervisor.network.links import BRIDGE_MAC_PREFIX, LINK_LOCAL, METADATA_ADDRESS, MIN_BURST_BYTES

NFT_TIMEOUT_SECONDS = 30
# Limits neighbour solicitations from allowed address pairs: each new source takes an entry in the host's neighbour
# table.
NEW_SOURCE_LIMIT = "limit rate over 20/second burst 200 packets"

log = logging.getLogger(__name__)


class AntiSpoofing:
    """The anti-spoofing rules of one installation. `tap_name` maps a port id to the name of its tap."""

    def __init__(
        self,
        installation: str,
        tap_name: Callable[[str], str],
        *,
        isolate: bool = False,
        host_filter: HostFilter | None = None,
        nat64_prefix: IPv6Network | None = None,
    ) -> None:
        """`isolate`: guests reach their router and networks behind it, but not each other on their segment.
        `nat64_prefix`: reachable from a port's own addresses only, as each source takes an address of the IPv4 pool."""
        self.installation = installation
        self.table = f"sixstack_{installation}"
        self.tap_name = tap_name
        self.isolate = isolate
        self.host_filter = host_filter or HostFilter(installation, METADATA_ADDRESS)
        self.nat64_prefix = nat64_prefix
        self._lock = threading.Lock()
        # Elements of the kernel's set `here`: VXLAN device and MAC of each guest that runs on this host. None while the
        # contents of the set are unknown.
        self._local_macs: frozenset[str] | None = None
        # False at start: an earlier run may have written other rules, by another release or with other settings.
        self._rules_are_current = False

    def ensure(self, nics: Iterable[NicSpec], *, is_incoming: bool = False) -> None:
        """Write the rules of these ports, replacing older ones, in one transaction.

        `is_incoming`: the guest still runs on another host, so frames with its MAC arrive from there."""
        nics = list(nics)
        lines = []
        for nic in nics:
            tap = self.tap_name(nic.port_id)
            lines += tap_rules(self.table, tap, nic, isolate=self.isolate, nat64_prefix=self.nat64_prefix)
        lines += [
            line for nic in nics for line in isolation_commands(self.table, self.tap_name(nic.port_id), nic.isolated)
        ]
        lines += self._gateway_commands(nics)
        lines += [line for nic in nics if nic.addresses for line in self._routing_commands(nic)]
        if lines:
            self._apply(
                [
                    *self._table_commands(),
                    *lines,
                    *self._segment_commands(nics),
                    *self._mac_commands(nics, is_local=not is_incoming),
                ]
            )
            self._record_macs(nics, is_local=not is_incoming)

    def allow_remote_macs(self, nics: Iterable[NicSpec]) -> None:
        """Accept frames with the MACs of these ports from other hosts, as the guests migrate. The tap rules stay."""
        nics = list(nics)
        if nics:
            self._apply([*self._table_commands(), *self._mac_commands(nics, is_local=False)])
            self._record_macs(nics, is_local=False)

    def remove(self, nics: Iterable[NicSpec]) -> None:
        """Remove the rules of these ports; succeeds when there are none."""
        nics = list(nics)
        self._remove([self.tap_name(nic.port_id) for nic in nics], self._mac_commands(nics, is_local=False))
        self._record_macs(nics, is_local=False)

    def repair(self, nics: Iterable[NicSpec], here: Iterable[NicSpec] = ()) -> None:
        """Make the rules match exactly these ports, after a flush of the rule set or a crash of the agent.

        `here`: the ports of guests that run on this host and are not migrating."""
        wanted = {self.tap_name(nic.port_id): nic for nic in nics}
        present = self.list_guarded_taps()
        if wanted and not self._host_filter_is_complete():
            self._rules_are_current = False
        missing = [nic for tap, nic in wanted.items() if tap not in present]
        if missing or (wanted and not self._rules_are_current):
            self._local_macs = None
            self.ensure(missing if self._rules_are_current else wanted.values(), is_incoming=True)
            self._rules_are_current = True
        self._remove(sorted(present - wanted.keys()))
        macs = frozenset(map(self._mac_element, here))
        if wanted and macs != self._local_macs:
            added = [f"add element bridge {self.table} here {{ {', '.join(sorted(macs))} }}"] if macs else []
            self._apply([*self._table_commands(), f"flush set bridge {self.table} here", *added])
            self._local_macs = macs

    def list_guarded_taps(self) -> set[str]:
        """The names of the taps that have rules."""
        elements = self._list_items("map", "taps")
        return {str(element[0]) for item in elements for element in item.get("map", {}).get("elem", [])}

    def count_dropped(self, nic: NicSpec) -> int:
        """The number of frames from this port dropped since its rules were written."""
        rules = [
            item["rule"]
            for item in self._list_items("chain", _chain_name(self.tap_name(nic.port_id)))
            if "rule" in item
        ]
        counters = [word["counter"] for rule in rules for word in rule["expr"] if "counter" in word]
        return sum(counter["packets"] for counter in counters)

    def close_down(self) -> None:
        """Remove both tables, the host filter included; succeeds when there are none."""
        tables = (f"bridge {self.table}", self.host_filter.table)
        self._apply([f"{verb} table {table}" for table in tables for verb in ("add", "delete")])
        self._local_macs = None

    def _remove(self, taps: list[str], more: Iterable[str] = ()) -> None:
        lines = [*more]
        for tap in taps:
            chain, element = f"bridge {self.table} {_chain_name(tap)}", f'bridge {self.table} taps {{ "{tap}"'
            # nft fails to delete a missing object, so each is added before it is deleted.
            lines += [f"add chain {chain}", f"add element {element} : jump {_chain_name(tap)} }}"]
            lines += [f"delete element {element} }}", f"flush chain {chain}", f"delete chain {chain}"]
            lines += [*isolation_commands(self.table, tap, False), *routing_commands(self.table, f'"{tap}"', False)]
        if lines:
            self._apply([*self._table_commands(), *lines])

    def _table_commands(self) -> list[str]:
        tables = _table_commands(self.table, self.installation, isolate=self.isolate, nat64_prefix=self.nat64_prefix)
        return [*self.host_filter.commands(), *tables]

    def _host_filter_is_complete(self) -> bool:
        """Whether the kernel has as many rules in the host filter's table as were written."""
        done = _nft(["--json", "--terse", "list", "table", *self.host_filter.table.split()])
        items = json.loads(done.stdout)["nftables"] if done.returncode == 0 else []
        return sum("rule" in item for item in items) == self.host_filter.count_rules()

    def _segment_commands(self, nics: list[NicSpec]) -> list[str]:
        """Commands that accept VXLAN of these VNIs from the uplink only. VNIs no longer in use need no removal."""
        vnis = ", ".join(map(str, sorted({nic.vni for nic in nics})))
        return [f"add element {self.host_filter.table} segments {{ {vnis} }}"]

    def _mac_element(self, nic: NicSpec) -> str:
        return f'"6v{self.installation}-{nic.vni:06x}" . {nic.mac}'

    def _mac_commands(self, nics: list[NicSpec], *, is_local: bool) -> list[str]:
        """Commands that accept the MACs of these ports from taps only (`is_local`), or from other hosts as well."""
        if not nics:
            return []
        elements = f"element bridge {self.table} here {{ {', '.join(sorted(set(map(self._mac_element, nics))))} }}"
        # nft fails to delete a missing element, so it is added first.
        return [f"add {elements}", *([] if is_local else [f"delete {elements}"])]

    def _record_macs(self, nics: list[NicSpec], *, is_local: bool) -> None:
        if self._local_macs is not None:
            macs = frozenset(map(self._mac_element, nics))
            self._local_macs = self._local_macs | macs if is_local else self._local_macs - macs

    def _gateway_commands(self, nics: Iterable[NicSpec]) -> list[str]:
        """Commands that add the gateways to their set. Addresses are never reused, so old gateways need no removal."""
        numbers = sorted({_hex(nic.gateway) for nic in nics if nic.gateway is not None})
        return [f"add element bridge {self.table} gateways {{ {', '.join(numbers)} }}"] if numbers else []

    def _routing_commands(self, nic: NicSpec) -> list[str]:
        """Commands that block routing for a port's tap and VXLAN device if its network has no gateway, or allow it.

        An element left for a VXLAN device after its last guest has no effect."""
        links = f'"{self.tap_name(nic.port_id)}", "6v{self.installation}-{nic.vni:06x}"'
        return routing_commands(self.table, links, nic.gateway is None)

    def _apply(self, lines: list[str]) -> None:
        with self._lock:
            done = _nft(["-f", "-"], "\n".join(lines) + "\n")
        if done.returncode != 0:
            if "Operation not permitted" in done.stderr:
                raise HostUnfit("Packet filter rules need root (CAP_NET_ADMIN): start Sixstack as root.")
            log.error("Cannot apply the anti-spoofing rules: %s", done.stderr.strip())
            raise LaunchFailed(NETWORK_FAILED)

    def _list_items(self, kind: str, name: str) -> list[dict[str, Any]]:
        done = _nft(["--json", "list", kind, "bridge", self.table, name])
        if done.returncode != 0:
            return []
        items: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
        return items


def port_addresses(nic: NicSpec) -> list[IPv6Address]:
    """The source addresses that belong to this port: EUI-64 link-local and assigned, without allowed address pairs."""
    return sorted({slaac_address(LINK_LOCAL, nic.mac), *(address.ip for address in nic.addresses)})


def tap_rules(
    table: str, tap: str, nic: NicSpec, *, isolate: bool = False, nat64_prefix: IPv6Network | None = None
) -> list[str]:
    """The nft commands that create or replace the chain of one tap."""
    own = port_addresses(nic)
    addresses = ", ".join(map(format_address, own))
    allowed = [prefix for _, prefix in nic.allowed]
    targets = ", ".join(map(_hex_range, collapse_addresses([*map(IPv6Network, own), *allowed])))
    macs = ", ".join(sorted({nic.mac, *(mac for mac, _ in nic.allowed)}))
    chain = f"bridge {table} {_chain_name(tap)}"
    rules = [
        f"ether saddr != {{ {macs} }} counter drop",
        "ether type != ip6 counter drop",
        # Sent by routers and DHCP servers only.
        "icmpv6 type { nd-router-advert, nd-redirect } counter drop",
        # DHCPv6 replies, from any source port: there is no DHCPv6 server on these networks.
        "udp dport 546 counter drop",
        # RFC 6980: neighbour discovery must not be fragmented; fragments would evade these rules.
        "ip6 daddr ff00::/8 exthdr frag exists counter drop",
        # Targets of advertisements and of duplicate address detection (source ::). A probe for another guest's address
        # would keep that guest from using the address (RFC 4862, 5.4.3).
        f"icmpv6 type nd-neighbor-advert @th,64,128 != {{ {targets} }} counter drop",
        f"ip6 saddr :: icmpv6 type nd-neighbor-solicit @th,64,128 != {{ {targets} }} counter drop",
        *(f"limit rate over {limit} counter drop" for limit in _rate_limits(nic.outbound)),
        *(_isolation_rules(nic) if isolate or nic.isolated else []),
        "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept",
        f"ip6 saddr {{ {addresses} }} accept",
        *([f"ip6 daddr {METADATA_ADDRESS} meta l4proto tcp counter drop"] if allowed else []),
        *([f"ip6 daddr {nat64_prefix} counter drop"] if allowed and nat64_prefix else []),
        *([f"icmpv6 type nd-neighbor-solicit {NEW_SOURCE_LIMIT} counter drop"] if allowed else []),
        *(f"ether saddr {mac} ip6 saddr {format_prefix(prefix)} accept" for mac, prefix in nic.allowed),
        "counter drop",
    ]
    return [
        f"add chain {chain}",
        f"flush chain {chain}",
        *(f"add rule {chain} {rule}" for rule in rules),
        f'add element bridge {table} taps {{ "{tap}" : jump {_chain_name(tap)} }}',
    ]


def isolation_commands(table: str, tap: str, isolated: bool) -> list[str]:
    """The nft commands that isolate the guest behind a tap from others on its segment, or end the isolation."""
    element = f'element bridge {table} apart {{ "{tap}" }}'
    return [f"add {element}", *([] if isolated else [f"delete {element}"])]


def routing_commands(table: str, links: str, is_closed: bool) -> list[str]:
    """The nft commands that block routing of packets received on these links (`is_closed`), or allow it."""
    element = f"element bridge {table} closed {{ {links} }}"
    return [f"add {element}", *([] if is_closed else [f"delete {element}"])]


def _isolation_rules(nic: NicSpec) -> list[str]:
    """Rules that keep an isolated guest from reaching others on its segment via the router. Hosts stay reachable."""
    rules = []
    for prefix in sorted({address.network for address in nic.addresses}):
        host = slaac_address(IPv6Interface(prefix), f"{BRIDGE_MAC_PREFIX}:00:00:00:00")
        hosts = [str(IPv6Network((host, 80), strict=False)), *([format_address(nic.gateway)] if nic.gateway else [])]
        rules.append(f"ip6 daddr {format_prefix(prefix)} ip6 daddr != {{ {', '.join(hosts)} }} counter drop")
    return rules


def _rate_limits(rate: Rate | None) -> list[str]:
    """nft limit expressions for a guest's outbound rate; frames beyond are dropped (policing, no queue)."""
    if rate is None:
        return []
    least = max(MIN_BURST_BYTES, rate.average // 10)
    limits = [f"{rate.average} bytes/second burst {max(rate.burst, least)} bytes"]
    if rate.peak > rate.average:
        limits.append(f"{rate.peak} bytes/second burst {least} bytes")
    return limits


def _table_commands(table: str, installation: str, *, isolate: bool, nat64_prefix: IPv6Network | None) -> list[str]:
    remote_rules = [
        "iifname . ether saddr @here counter drop",
        f"ip6 saddr {METADATA_ADDRESS} counter drop",
        f"ip6 daddr {METADATA_ADDRESS} counter drop",
        "icmpv6 type { nd-router-solicit, nd-router-advert, nd-redirect } counter drop",
        f"icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} @th,64,128 {_hex(METADATA_ADDRESS)} counter drop",
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } @th,64,128 @gateways counter drop",
    ]
    # Neighbour advertisements to other hosts are accepted: a host that routes a packet from outside resolves the guest.
    isolation_rules = [
        f'oifname "6v{installation}-*" ether daddr & ff:ff:00:00:00:00 == {BRIDGE_MAC_PREFIX}:00:00:00:00 '
        "icmpv6 type nd-neighbor-advert accept",
        "counter drop",
    ]
    isolated_taps = f'"6t{installation}*"' if isolate else "@apart"
    # NAT64 serves the guests of this host only: other hosts' rules do not check sources for this prefix.
    nat64_rules = [f'iifname "6v{installation}-*" ip6 daddr {nat64_prefix} counter drop'] if nat64_prefix else []
    return [
        f"add table bridge {table}",
        f"add map bridge {table} taps {{ type ifname : verdict; }}",
        f"add set bridge {table} gateways {{ typeof @th,64,128; }}",
        f"add set bridge {table} here {{ typeof iifname . ether saddr; }}",
        f"add set bridge {table} apart {{ type ifname; }}",
        f"add set bridge {table} closed {{ type ifname; }}",
        f"add chain bridge {table} others",
        f"flush chain bridge {table} others",
        *(f"add rule bridge {table} others {rule}" for rule in remote_rules),
        f"add chain bridge {table} pre {{ type filter hook prerouting priority -300; policy accept; }}",
        f"flush chain bridge {table} pre",
        f"add rule bridge {table} pre iifname vmap @taps",
        f'add rule bridge {table} pre iifname "6v{installation}-*" jump others',
        # Priority below 0: with bridge-nf-call-ip6tables=1 the kernel skips hooks at exactly 0.
        f"add chain bridge {table} across {{ type filter hook forward priority -200; policy accept; }}",
        f"flush chain bridge {table} across",
        *(f"add rule bridge {table} across iifname {isolated_taps} {rule}" for rule in isolation_rules),
        f"add chain bridge {table} host {{ type filter hook input priority -200; policy accept; }}",
        f"flush chain bridge {table} host",
        f"add rule bridge {table} host iifname @closed ip6 daddr != {{ fe80::/10, ff00::/8 }} counter drop",
        *(f"add rule bridge {table} host {rule}" for rule in nat64_rules),
    ]


def _chain_name(tap: str) -> str:
    """The chain of a tap; nft requires names that begin with a letter."""
    return f"of_{tap}"


def _hex(address: IPv6Address) -> str:
    return f"0x{int(address):032x}"


def _hex_range(prefix: IPv6Network) -> str:
    first, last = prefix[0], prefix[-1]
    return _hex(first) if first == last else f"{_hex(first)}-{_hex(last)}"


def _nft(words: list[str], script: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["nft", *words], input=script, capture_output=True, text=True, timeout=NFT_TIMEOUT_SECONDS
        )
    except FileNotFoundError:
        raise HostUnfit("nft is missing: apt install nftables") from None
    except subprocess.TimeoutExpired:
        raise LaunchFailed(f"nft did not finish within {NFT_TIMEOUT_SECONDS} seconds.") from None
