"""Host filter: nftables rules (inet family) for packets from guests to their host and for incoming VXLAN packets.

    guest -> bridge 6b… -> input hook -> chain guests: a short allowlist; the rest is counted and dropped
    guest -> tayga -> tun 6n… -> the same chain, for the host's IPv4 addresses
    any link -> input hook, UDP 4789 -> chain underlay: VXLAN of this installation's segments from uplink and peers only

The kernel's VXLAN socket accepts datagrams on every address of the host, so without the second part any sender that
reaches the host could inject frames into any segment. The cost of both parts does not depend on the number of guests.
They do not use connection tracking, whose table a guest could fill: replies to the host are recognised by TCP flags,
and for UDP by a set of the flows that the host itself has opened.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address

from hypervisor.api.addresses import format_address

VXLAN_PORT = 4789
# Unreachable through NAT64 unless the operator allows them: RFC 1918, RFC 6598, link-local and the host's loopback.
PRIVATE_IPV4 = tuple(
    map(IPv4Network, ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"))
) + tuple(map(IPv4Network, ("172.16.0.0/12", "192.168.0.0/16")))
# Limits new destinations on other segments of this host, per sender: each takes an entry in the kernel's neighbour
# table.
NEW_NEIGHBOUR_LIMIT = "limit rate over 20/second burst 200 packets"


@dataclass(frozen=True)
class HostFilter:
    """The rules for access of one installation's guests to their host.

    `resolvers`: addresses that accept DNS queries from guests. `tcp_ports`: other services open to guests. `is_open`:
    guests reach every service of the host; VXLAN stays filtered. `ipv4_pool`: the NAT64 pool, never a destination.
    `allowed_ipv4`: private networks that guests may reach through NAT64.
    """

    installation: str
    metadata: IPv6Address
    uplink: str = "lo"
    peers: tuple[IPv6Address, ...] = ()
    resolvers: tuple[IPv6Address, ...] = ()
    tcp_ports: tuple[int, ...] = ()
    is_open: bool = False
    ipv4_pool: IPv4Network | None = None
    allowed_ipv4: tuple[IPv4Network, ...] = ()

    @property
    def table(self) -> str:
        return f"inet sixstack_{self.installation}"

    def commands(self) -> list[str]:
        """The nft commands that create the table or replace its rules; sets keep their elements."""
        flow = "type ipv6_addr . inet_service . ipv6_addr . inet_service"
        lines = [
            f"add table {self.table}",
            f"add set {self.table} segments {{ typeof @th,96,24; }}",
            f"add set {self.table} begun {{ {flow}; flags dynamic,timeout; size 65535; timeout 1m; }}",
            f"add set {self.table} reached {{ type ipv6_addr; flags dynamic,timeout; size 262144; timeout 1m; }}",
            f"add set {self.table} senders {{ type ether_addr; flags dynamic,timeout; size 65535; timeout 1m; }}",
        ]
        chains = self.chains()
        for chain in chains:
            hook = {"host": "input", "out": "output", "across": "forward"}.get(chain)
            kind = f" {{ type filter hook {hook} priority -10; policy accept; }}" if hook else ""
            lines += [f"add chain {self.table} {chain}{kind}", f"flush chain {self.table} {chain}"]
        # Rules follow all chains, as they jump to chains.
        lines += [f"add rule {self.table} {chain} {rule}" for chain, rules in chains.items() for rule in rules]
        return lines

    def chains(self) -> dict[str, list[str]]:
        """Rules by chain name."""
        bridges, tunnel = f'"6b{self.installation}-*"', f'"6n{self.installation}"'
        return {
            "guests": self._guest_rules(),
            "underlay": self._underlay_rules(),
            "host": [
                f"iifname {bridges} jump guests",
                f"iifname {tunnel} jump guests",
                f"meta nfproto ipv6 udp dport {VXLAN_PORT} jump underlay",
            ],
            # DNS responses of the host (source port 53) do not open a flow.
            "out": [
                f"oifname {bridges} meta nfproto ipv6 udp sport != 53 "
                "update @begun { ip6 daddr . udp dport . ip6 saddr . udp sport }"
            ],
            "across": [
                # Routed or masqueraded, a guest's packet to another host's VXLAN port would pass as underlay traffic.
                f'iifname {bridges} oifname "{self.uplink}" udp dport {VXLAN_PORT} counter drop',
                *self._nat64_rules(tunnel),
                f"iifname {bridges} oifname {bridges} ip6 daddr != @reached "
                f"add @senders {{ ether saddr {NEW_NEIGHBOUR_LIMIT} }} counter drop",
                f"iifname {bridges} oifname {bridges} ip6 daddr != @reached add @reached {{ ip6 daddr }}",
            ],
        }

    def count_rules(self) -> int:
        return sum(map(len, self.chains().values()))

    def _guest_rules(self) -> list[str]:
        rules = [f"udp dport {VXLAN_PORT} counter drop"]
        if self.is_open:
            # Fragments may lack the UDP header that the rule above matches.
            fragment = "meta nfproto ipv6 exthdr frag exists"
            return [*rules, f"{fragment} meta l4proto {{ tcp, ipv6-icmp }} accept", f"{fragment} counter drop"]
        rules += [
            "meta l4proto { icmp, ipv6-icmp } accept",
            # Every TCP segment but an initial SYN: replies to connections that the host has opened.
            "tcp flags & (syn | ack) != syn accept",
            "ip6 saddr . udp sport . ip6 daddr . udp dport @begun accept",
            f"ip6 daddr {self.metadata} tcp dport 80 accept",
        ]
        if self.resolvers:
            rules.append(
                f"ip6 daddr {{ {_format_elements(self.resolvers)} }} meta l4proto {{ tcp, udp }} th dport 53 accept"
            )
        if self.tcp_ports:
            rules.append(f"tcp dport {{ {', '.join(map(str, sorted(set(self.tcp_ports))))} }} accept")
        return [*rules, "counter drop"]

    def _underlay_rules(self) -> list[str]:
        peers = f" ip6 saddr {{ {_format_elements(self.peers)} }}" if self.peers else ""
        return [
            f'iifname "{self.uplink}"{peers} return',
            # Matches the VNI: other installations and programs on this computer may use VXLAN on other links.
            "@th,96,24 @segments counter drop",
            # The first fragment may end before the VNI. The kernel never fragments VXLAN.
            "exthdr frag exists counter drop",
        ]

    def _nat64_rules(self, tunnel: str) -> list[str]:
        if self.ipv4_pool is None:
            return []
        denied = ", ".join(map(str, (*PRIVATE_IPV4, *(() if self._pool_is_private() else (self.ipv4_pool,)))))
        allowed = ", ".join(map(str, self.allowed_ipv4))
        return [
            *([f"iifname {tunnel} ip daddr {{ {allowed} }} accept"] if allowed else []),
            f"iifname {tunnel} ip daddr {{ {denied} }} counter drop",
        ]

    def _pool_is_private(self) -> bool:
        """Whether PRIVATE_IPV4 covers the pool; nft refuses sets with overlapping intervals."""
        return self.ipv4_pool is not None and any(self.ipv4_pool.overlaps(network) for network in PRIVATE_IPV4)


def _format_elements(addresses: tuple[IPv6Address, ...]) -> str:
    """The elements of an nft set, without address scopes, which nft does not support."""
    return ", ".join(sorted({format_address(address) for address in addresses}))
