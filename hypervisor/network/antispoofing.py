"""nftables rules that keep a guest from pretending to be another one, the router or a name it has not got.

One table for each installation, in the bridge family. A map sends every frame that comes out of a tap to the tap's own
chain, so the cost does not grow with the number of guests:

    frame from a tap -> pre -> map taps -> chain of the tap: accept, or counted and dropped

What arrives from other hosts has passed their rules. Only what each host says for itself to its own guests is dropped
there: router advertisements, and neighbour discovery for the addresses that all hosts have (gateways and metadata).
Frames from there with the MAC of a guest that runs here are dropped as well: they would move the MAC to another port.

What guests may send to the host itself is decided in the table of host_filter.py, which is written in the same
transaction.

Rules are in place before the tap exists. A guest may use its own MAC; as source its link-local address (the EUI-64 one)
and the addresses assigned to its port; and it may speak for these only in neighbour discovery. The owner of its network
may allow it more pairs of MAC and address; it is not known by these to the metadata service.

A network without a gateway has none for guests that set a route by hand, either: of what they send to a host, it hears
only what is link-local or multicast, such as questions to the metadata service.
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
from hypervisor.network.links import BRIDGE_MAC_PREFIX, LINK_LOCAL, METADATA, MIN_BURST_BYTES

NFT_SECONDS = 30
# Neighbour solicitations from addresses of a pair: each new source costs an entry in the host's neighbour table.
NEW_SOURCES = "limit rate over 20/second burst 200 packets"

log = logging.getLogger(__name__)


class AntiSpoofing:
    """The rules of one installation. `tap_name` gives the name of a port's tap."""

    def __init__(
        self,
        installation: str,
        tap_name: Callable[[str], str],
        *,
        isolate: bool = False,
        host_filter: HostFilter | None = None,
        nat64_prefix: IPv6Network | None = None,
    ) -> None:
        """`isolate`: guests reach their router and what is behind it, but not each other on their segment.
        `nat64_prefix`: reached from a port's own addresses only, as each source takes an address of the IPv4 pool."""
        self.installation = installation
        self.table = f"sixstack_{installation}"
        self.tap_name = tap_name
        self.isolate = isolate
        self.host_filter = host_filter or HostFilter(installation, METADATA)
        self.nat64_prefix = nat64_prefix
        self._lock = threading.Lock()
        # VXLAN device and MAC of each guest that runs here; None until the set in the kernel is known to be ours.
        self._here: frozenset[str] | None = None
        # An earlier run may have written other rules: it was another release, or had other settings.
        self._is_as_we_write_it = False

    def ensure(self, nics: Iterable[NicSpec], *, is_incoming: bool = False) -> None:
        """These ports are guarded, with exactly the rules they need now. One transaction: all or nothing.

        `is_incoming`: the guest still runs on another host, so that frames with its MAC arrive from there."""
        nics = list(nics)
        lines = []
        for nic in nics:
            tap = self.tap_name(nic.port_id)
            lines += tap_rules(self.table, tap, nic, isolate=self.isolate, nat64_prefix=self.nat64_prefix)
        lines += [
            line for nic in nics for line in isolation_commands(self.table, self.tap_name(nic.port_id), nic.isolated)
        ]
        lines += self._gateways(nics)
        lines += [line for nic in nics if nic.addresses for line in self._ways_out(nic)]
        if lines:
            self._run([*self._table(), *lines, *self._segments(nics), *self._macs(nics, are_here=not is_incoming)])
            self._note(nics, are_here=not is_incoming)

    def allow_remote_macs(self, nics: Iterable[NicSpec]) -> None:
        """The guest of these ports may run on another host from now on; its rules stay."""
        nics = list(nics)
        if nics:
            self._run([*self._table(), *self._macs(nics, are_here=False)])
            self._note(nics, are_here=False)

    def remove(self, nics: Iterable[NicSpec]) -> None:
        """The rules of these ports go; content if they are gone."""
        nics = list(nics)
        self._remove([self.tap_name(nic.port_id) for nic in nics], self._macs(nics, are_here=False))
        self._note(nics, are_here=False)

    def repair(self, nics: Iterable[NicSpec], here: Iterable[NicSpec] = ()) -> None:
        """Exactly these ports are guarded: after somebody flushed the rule set, or after a crash of ours.
        `here`: those of guests that run on this host and nowhere else."""
        wanted = {self.tap_name(nic.port_id): nic for nic in nics}
        present = self.guarded_taps()
        if wanted and not self._host_filter_is_whole():
            self._is_as_we_write_it = False
        missing = [nic for tap, nic in wanted.items() if tap not in present]
        if missing or (wanted and not self._is_as_we_write_it):
            self._here = None
            self.ensure(missing if self._is_as_we_write_it else wanted.values(), is_incoming=True)
            self._is_as_we_write_it = True
        self._remove(sorted(present - wanted.keys()))
        macs = frozenset(map(self._mac, here))
        if wanted and macs != self._here:
            added = [f"add element bridge {self.table} here {{ {', '.join(sorted(macs))} }}"] if macs else []
            self._run([*self._table(), f"flush set bridge {self.table} here", *added])
            self._here = macs

    def guarded_taps(self) -> set[str]:
        """Names of the taps that have rules."""
        elements = self._list("map", "taps")
        return {str(element[0]) for item in elements for element in item.get("map", {}).get("elem", [])}

    def dropped(self, nic: NicSpec) -> int:
        """How many frames of this port were dropped since its rules were made."""
        rules = [item["rule"] for item in self._list("chain", _chain(self.tap_name(nic.port_id))) if "rule" in item]
        counters = [word["counter"] for rule in rules for word in rule["expr"] if "counter" in word]
        return sum(counter["packets"] for counter in counters)

    def close_down(self) -> None:
        """Both tables go."""
        tables = (f"bridge {self.table}", self.host_filter.table)
        self._run([f"{verb} table {table}" for table in tables for verb in ("add", "delete")])
        self._here = None

    def _remove(self, taps: list[str], more: Iterable[str] = ()) -> None:
        lines = [*more]
        for tap in taps:
            chain, element = f"bridge {self.table} {_chain(tap)}", f'bridge {self.table} taps {{ "{tap}"'
            # Made before they are removed, so that it does not matter whether they are there.
            lines += [f"add chain {chain}", f"add element {element} : jump {_chain(tap)} }}"]
            lines += [f"delete element {element} }}", f"flush chain {chain}", f"delete chain {chain}"]
            lines += [*isolation_commands(self.table, tap, False), *routing_commands(self.table, f'"{tap}"', False)]
        if lines:
            self._run([*self._table(), *lines])

    def _table(self) -> list[str]:
        tables = _table(self.table, self.installation, isolate=self.isolate, nat64_prefix=self.nat64_prefix)
        return [*self.host_filter.commands(), *tables]

    def _host_filter_is_whole(self) -> bool:
        """Whether the table of the host filter has all of its rules."""
        done = _nft(["--json", "--terse", "list", "table", *self.host_filter.table.split()])
        items = json.loads(done.stdout)["nftables"] if done.returncode == 0 else []
        return sum("rule" in item for item in items) == self.host_filter.rule_count()

    def _segments(self, nics: list[NicSpec]) -> list[str]:
        """VNIs whose frames are accepted from the uplink only. One that is not used here any more does no harm."""
        vnis = ", ".join(map(str, sorted({nic.vni for nic in nics})))
        return [f"add element {self.host_filter.table} segments {{ {vnis} }}"]

    def _mac(self, nic: NicSpec) -> str:
        return f'"6v{self.installation}-{nic.vni:06x}" . {nic.mac}'

    def _macs(self, nics: list[NicSpec], *, are_here: bool) -> list[str]:
        """The commands that let the MACs of these ports in from taps only, or from other hosts as well."""
        if not nics:
            return []
        elements = f"element bridge {self.table} here {{ {', '.join(sorted(set(map(self._mac, nics))))} }}"
        # Added before it is deleted, so that it does not matter whether it is there.
        return [f"add {elements}", *([] if are_here else [f"delete {elements}"])]

    def _note(self, nics: list[NicSpec], *, are_here: bool) -> None:
        if self._here is not None:
            macs = frozenset(map(self._mac, nics))
            self._here = self._here | macs if are_here else self._here - macs

    def _gateways(self, nics: Iterable[NicSpec]) -> list[str]:
        """Addresses are never given twice, so one that is not a gateway here any more does no harm."""
        numbers = sorted({_number(nic.gateway) for nic in nics if nic.gateway is not None})
        return [f"add element bridge {self.table} gateways {{ {', '.join(numbers)} }}"] if numbers else []

    def _ways_out(self, nic: NicSpec) -> list[str]:
        """The commands that close a network without a gateway to its guests, here and on other hosts, or open another.
        A VXLAN device that stays closed after its last guest does no harm."""
        links = f'"{self.tap_name(nic.port_id)}", "6v{self.installation}-{nic.vni:06x}"'
        return routing_commands(self.table, links, nic.gateway is None)

    def _run(self, lines: list[str]) -> None:
        with self._lock:
            done = _nft(["-f", "-"], "\n".join(lines) + "\n")
        if done.returncode != 0:
            if "Operation not permitted" in done.stderr:
                raise HostUnfit("Packet filter rules need root (CAP_NET_ADMIN): start Sixstack as root.")
            log.error("The rules against spoofing cannot be set: %s", done.stderr.strip())
            raise LaunchFailed(NETWORK_FAILED)

    def _list(self, kind: str, name: str) -> list[dict[str, Any]]:
        done = _nft(["--json", "list", kind, "bridge", self.table, name])
        if done.returncode != 0:
            return []
        items: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
        return items


def port_addresses(nic: NicSpec) -> list[IPv6Address]:
    """The addresses that this port, and no other one, may send from."""
    return sorted({slaac_address(LINK_LOCAL, nic.mac), *(address.ip for address in nic.addresses)})


def tap_rules(
    table: str, tap: str, nic: NicSpec, *, isolate: bool = False, nat64_prefix: IPv6Network | None = None
) -> list[str]:
    """The commands that make or renew the chain of one tap."""
    own = port_addresses(nic)
    addresses = ", ".join(map(format_address, own))
    allowed = [prefix for _, prefix in nic.allowed]
    targets = ", ".join(map(_numbers, collapse_addresses([*map(IPv6Network, own), *allowed])))
    macs = ", ".join(sorted({nic.mac, *(mac for mac, _ in nic.allowed)}))
    chain = f"bridge {table} {_chain(tap)}"
    rules = [
        f"ether saddr != {{ {macs} }} counter drop",
        "ether type != ip6 counter drop",
        # What only routers and DHCP servers say.
        "icmpv6 type { nd-router-advert, nd-redirect } counter drop",
        # To DHCPv6 clients, from any port: there is no DHCPv6 server on these networks.
        "udp dport 546 counter drop",
        # Neighbour discovery is never fragmented, except to hide from rules like these.
        "ip6 daddr ff00::/8 exthdr frag exists counter drop",
        # The target of an advertisement, and that of a question that comes from nobody: "is this address taken?"
        # Asked about another guest's address, it would keep that guest from using it.
        f"icmpv6 type nd-neighbor-advert @th,64,128 != {{ {targets} }} counter drop",
        f"ip6 saddr :: icmpv6 type nd-neighbor-solicit @th,64,128 != {{ {targets} }} counter drop",
        *(f"limit rate over {limit} counter drop" for limit in _limits(nic.outbound)),
        *(_no_detours(nic) if isolate or nic.isolated else []),
        "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept",
        f"ip6 saddr {{ {addresses} }} accept",
        *([f"ip6 daddr {METADATA} meta l4proto tcp counter drop"] if allowed else []),
        *([f"ip6 daddr {nat64_prefix} counter drop"] if allowed and nat64_prefix else []),
        *([f"icmpv6 type nd-neighbor-solicit {NEW_SOURCES} counter drop"] if allowed else []),
        *(f"ether saddr {mac} ip6 saddr {format_prefix(prefix)} accept" for mac, prefix in nic.allowed),
        "counter drop",
    ]
    return [
        f"add chain {chain}",
        f"flush chain {chain}",
        *(f"add rule {chain} {rule}" for rule in rules),
        f'add element bridge {table} taps {{ "{tap}" : jump {_chain(tap)} }}',
    ]


def isolation_commands(table: str, tap: str, isolated: bool) -> list[str]:
    """The commands that keep the guest behind a tap from the others on its segment, or no longer do."""
    element = f'element bridge {table} apart {{ "{tap}" }}'
    return [f"add {element}", *([] if isolated else [f"delete {element}"])]


def routing_commands(table: str, links: str, is_closed: bool) -> list[str]:
    """The commands that keep what comes by these links from being routed, or no longer do."""
    element = f"element bridge {table} closed {{ {links} }}"
    return [f"add {element}", *([] if is_closed else [f"delete {element}"])]


def _no_detours(nic: NicSpec) -> list[str]:
    """The router would bring packets back to the segment that they come from: to a guest that is kept apart. Hosts
    themselves are answered to."""
    rules = []
    for prefix in sorted({address.network for address in nic.addresses}):
        host = slaac_address(IPv6Interface(prefix), f"{BRIDGE_MAC_PREFIX}:00:00:00:00")
        hosts = [str(IPv6Network((host, 80), strict=False)), *([format_address(nic.gateway)] if nic.gateway else [])]
        rules.append(f"ip6 daddr {format_prefix(prefix)} ip6 daddr != {{ {', '.join(hosts)} }} counter drop")
    return rules


def _limits(rate: Rate | None) -> list[str]:
    """What a guest sends beyond these is lost, as on a wire that is too slow."""
    if rate is None:
        return []
    least = max(MIN_BURST_BYTES, rate.average // 10)
    limits = [f"{rate.average} bytes/second burst {max(rate.burst, least)} bytes"]
    if rate.peak > rate.average:
        limits.append(f"{rate.peak} bytes/second burst {least} bytes")
    return limits


def _table(table: str, installation: str, *, isolate: bool, nat64_prefix: IPv6Network | None) -> list[str]:
    shared = [
        "iifname . ether saddr @here counter drop",
        f"ip6 saddr {METADATA} counter drop",
        f"ip6 daddr {METADATA} counter drop",
        "icmpv6 type { nd-router-solicit, nd-router-advert, nd-redirect } counter drop",
        f"icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} @th,64,128 {_number(METADATA)} counter drop",
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } @th,64,128 @gateways counter drop",
    ]
    # Another host that brings a packet from outside must be able to find the guest.
    between = [
        f'oifname "6v{installation}-*" ether daddr & ff:ff:00:00:00:00 == {BRIDGE_MAC_PREFIX}:00:00:00:00 '
        "icmpv6 type nd-neighbor-advert accept",
        "counter drop",
    ]
    which = f'"6t{installation}*"' if isolate else "@apart"
    # NAT64 serves the guests of this host; those of others have passed no rule that knows of it.
    translated = [f'iifname "6v{installation}-*" ip6 daddr {nat64_prefix} counter drop'] if nat64_prefix else []
    return [
        f"add table bridge {table}",
        f"add map bridge {table} taps {{ type ifname : verdict; }}",
        f"add set bridge {table} gateways {{ typeof @th,64,128; }}",
        f"add set bridge {table} here {{ typeof iifname . ether saddr; }}",
        f"add set bridge {table} apart {{ type ifname; }}",
        f"add set bridge {table} closed {{ type ifname; }}",
        f"add chain bridge {table} others",
        f"flush chain bridge {table} others",
        *(f"add rule bridge {table} others {rule}" for rule in shared),
        f"add chain bridge {table} pre {{ type filter hook prerouting priority -300; policy accept; }}",
        f"flush chain bridge {table} pre",
        f"add rule bridge {table} pre iifname vmap @taps",
        f'add rule bridge {table} pre iifname "6v{installation}-*" jump others',
        # Before 0: where bridge-nf-call-ip6tables is on, the kernel skips what stands at exactly 0.
        f"add chain bridge {table} across {{ type filter hook forward priority -200; policy accept; }}",
        f"flush chain bridge {table} across",
        *(f"add rule bridge {table} across iifname {which} {rule}" for rule in between),
        f"add chain bridge {table} host {{ type filter hook input priority -200; policy accept; }}",
        f"flush chain bridge {table} host",
        f"add rule bridge {table} host iifname @closed ip6 daddr != {{ fe80::/10, ff00::/8 }} counter drop",
        *(f"add rule bridge {table} host {rule}" for rule in translated),
    ]


def _chain(tap: str) -> str:
    """Chains must begin with a letter."""
    return f"of_{tap}"


def _number(address: IPv6Address) -> str:
    return f"0x{int(address):032x}"


def _numbers(prefix: IPv6Network) -> str:
    first, last = prefix[0], prefix[-1]
    return _number(first) if first == last else f"{_number(first)}-{_number(last)}"


def _nft(words: list[str], script: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["nft", *words], input=script, capture_output=True, text=True, timeout=NFT_SECONDS)
    except FileNotFoundError:
        raise HostUnfit("nft is missing: apt install nftables") from None
    except subprocess.TimeoutExpired:
        raise LaunchFailed(f"nft did not answer within {NFT_SECONDS} seconds.") from None
