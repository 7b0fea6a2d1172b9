"""Segments on one host: maintains links, anti-spoofing and router advertisements for the machines that claim them."""

import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address

from hypervisor.api.errors import NETWORK_FAILED, LaunchFailed
from hypervisor.api.spec import MachineSpec, NicSpec
from hypervisor.network.antispoofing import AntiSpoofing, port_addresses
from hypervisor.network.links import METADATA_ADDRESS, Links
from hypervisor.network.radvd import Advertisement, RouterAdvertiser

Nics = tuple[NicSpec, ...]


class Segments:
    """The networking of one host. A segment exists from its first claim to the release of its last.

    Thread-safe: claims and removals of segments are serialised by one lock.
    """

    def __init__(
        self,
        links: Links,
        guard: AntiSpoofing,
        router: RouterAdvertiser,
        dns_servers: tuple[IPv6Address, ...] = (),
        dns_search: tuple[str, ...] = (),
    ) -> None:
        self.links = links
        self.guard = guard
        self.router = router
        self.dns_servers = dns_servers
        self.dns_search = dns_search
        self._lock = threading.RLock()
        self._claims: dict[str, Nics] = {}
        # Machines that migrate to or from this host: their guests may run on another host.
        self._migrating: set[str] = set()
        # VNI → indices of bridge and VXLAN device. Different indices in the kernel mean that the links were removed or
        # recreated by another program, which detaches the taps.
        self._link_indices: dict[int, tuple[int, int]] = {}
        self._watcher: Callable[[dict[int, int]], None] = lambda _: None

    def register(self, machine_id: str, nics: Nics, *, is_migrating: bool = False) -> None:
        """Record a machine found on this host. Links and rules are created by `repair`."""
        with self._lock:
            self._claims[machine_id] = nics
            if is_migrating:
                self._migrating.add(machine_id)

    def claim(self, machine_id: str, nics: Nics, *, is_incoming: bool = False) -> None:
        """Ensure the segments and rules for this machine's ports, and replace its earlier claim.

        `is_incoming`: the guest runs on another host until the machine is claimed again without it. Raises LaunchFailed
        if radvd refuses the advertisement of one of the segments.
        """
        with self._lock:
            previous = self._claims.get(machine_id, ())
            self._claims[machine_id] = nics
            (self._migrating.add if is_incoming else self._migrating.discard)(machine_id)
            self.guard.ensure(nics, is_incoming=is_incoming)
            ports = {nic.port_id for nic in nics}
            self.guard.remove([nic for nic in previous if nic.port_id not in ports])
            for nic in nics:
                self._link_indices[nic.vni] = self.links.ensure_segment(nic)
            self._remove_unclaimed({nic.vni for nic in previous})
            refused = self._advertise()
            if any(self.links.bridge(nic.vni) in refused for nic in nics):
                raise LaunchFailed(NETWORK_FAILED)

    def mark_migrating(self, machine_id: str) -> None:
        """Record that the guest of this machine may run on another host, until the next `claim`."""
        with self._lock:
            self._migrating.add(machine_id)
            self.guard.allow_remote_macs(self._claims.get(machine_id, ()))

    def release(self, machine_id: str) -> None:
        """Remove a machine's claim, its rules, and the segments that no other machine claims."""
        with self._lock:
            released = self._claims.pop(machine_id, None)
            self._migrating.discard(machine_id)
            if released is None:
                return
            # Links before rules, so that no VXLAN device exists without its rules.
            self._remove_unclaimed({nic.vni for nic in released})
            if self._claims:
                self.guard.remove(released)
            else:
                self.guard.close_down()
            self._advertise()

    def repair(self, running: Iterable[str]) -> None:
        """Restore links, rules and advertisements to the state that the claims of these running machines require."""
        with self._lock:
            present = self.links.list_segments()
            self._remove_unclaimed(present.keys() | self._link_indices.keys())
            # Rules before links, as in `claim`.
            here = [
                nic for machine_id, nics in self._claims.items() if machine_id not in self._migrating for nic in nics
            ]
            if self._claims:
                self.guard.repair([nic for nics in self._claims.values() for nic in nics], here)
            else:
                self.guard.close_down()
            needed = [nic for machine_id in running for nic in self._claims.get(machine_id, ())]
            broken = {nic.vni for nic in needed if self._link_indices.get(nic.vni, (0, 0)) != present.get(nic.vni)}
            for nic in needed:
                if nic.vni in broken:
                    self._link_indices[nic.vni] = self.links.ensure_segment(nic)
                    self.links.ensure_tap_plugged(nic)
            self._advertise()

    def subscribe(self, watcher: Callable[[dict[int, int]], None]) -> None:
        """Call `watcher` with `bridges()` now and after each possible change. Replaces the earlier watcher."""
        with self._lock:
            self._watcher = watcher
            watcher(self.bridges())

    def bridges(self) -> dict[int, int]:
        """The bridges on this host: link index → VNI."""
        with self._lock:
            return {bridge: vni for vni, (bridge, _) in self._link_indices.items()}

    def guest_spec(self, spec: MachineSpec) -> MachineSpec:
        """The spec as presented to the guest: with this host's resolvers where a network has none of its own."""
        nics = tuple(
            nic.model_copy(
                update={
                    "dns_servers": nic.dns_servers or self.dns_servers,
                    "dns_search": nic.dns_search or self.dns_search,
                }
            )
            for nic in spec.nics
        )
        return spec.model_copy(update={"nics": nics})

    def find_owner(self, vni: int, address: IPv6Address) -> str | None:
        """The id of the machine that may send from this address in a segment, or None."""
        with self._lock:
            for machine_id, nics in self._claims.items():
                for nic in nics:
                    if nic.vni == vni and address in port_addresses(nic):
                        return machine_id
        return None

    def ipv4_mappings(self) -> tuple[tuple[IPv4Address, IPv6Address], ...]:
        """Pairs of an IPv4 address and the address of the guest on this host that it is mapped to."""
        with self._lock:
            nics = [nic for nics in self._claims.values() for nic in nics]
        mappings = [(nic.ipv4_address, nic.addresses[0].ip) for nic in nics if nic.ipv4_address and nic.addresses]
        return tuple(sorted(mappings))

    def close_down(self) -> None:
        """Stop radvd and remove all segments and rules, regardless of claims."""
        with self._lock:
            self.router.apply(())
            for vni in self.links.list_segments():
                self.links.remove_segment(vni)
            self.guard.close_down()
            self._link_indices.clear()
            self._watcher({})

    def _remove_unclaimed(self, vnis: set[int]) -> None:
        needed = {nic.vni for nics in self._claims.values() for nic in nics}
        for vni in vnis - needed:
            self.links.remove_segment(vni)
            self._link_indices.pop(vni, None)

    def _advertise(self) -> frozenset[str]:
        """Update the router advertisements of all claimed segments; radvd reloads only after a change.

        Returns the bridges whose advertisement radvd refuses; the others are served.
        """
        ports: dict[int, list[NicSpec]] = {}
        for nics in self._claims.values():
            for nic in nics:
                if nic.addresses and nic.vni in self._link_indices:
                    ports.setdefault(nic.vni, []).append(nic)
        refused = self.router.apply(tuple(self._advertisement(nics) for nics in ports.values()))
        self._watcher(self.bridges())
        return refused

    def _advertisement(self, nics: list[NicSpec]) -> Advertisement:
        newest = nics[-1]
        return Advertisement(
            interface=self.links.bridge(newest.vni),
            prefixes=tuple(sorted({address.network for nic in nics for address in nic.addresses})),
            mtu=newest.mtu,
            source=METADATA_ADDRESS,
            dns_servers=newest.dns_servers or self.dns_servers,
            dns_search=newest.dns_search or self.dns_search,
            gateway=newest.gateway is not None,
            routes=tuple(sorted({prefix for prefix, nexthop in newest.routes if nexthop == newest.gateway})),
        )
