"""Which machine needs which segment; links, rules against spoofing and router advertisements follow from that."""

import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address

from hypervisor.api.errors import NETWORK_FAILED, LaunchFailed
from hypervisor.api.spec import MachineSpec, NicSpec
from hypervisor.network.antispoofing import AntiSpoofing, port_addresses
from hypervisor.network.links import METADATA, Links
from hypervisor.network.radvd import Advertisement, RouterAdvertiser

Nics = tuple[NicSpec, ...]


class Segments:
    """The network side of one host. A segment is there from the first claim on it to the release of the last.

    Safe to use from several threads: a segment is never removed by one that another one has just claimed.
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
        # Machines that are on their way to or from another host: their guests may run there.
        self._migrating: set[str] = set()
        # Indices of bridge and VXLAN device; others mean that somebody removed them, and our taps hang in the air.
        self._known: dict[int, tuple[int, int]] = {}
        self._watcher: Callable[[dict[int, int]], None] = lambda _: None

    def register(self, machine_id: str, nics: Nics, *, is_migrating: bool = False) -> None:
        """A machine found on this host. Nothing is done until `repair`."""
        with self._lock:
            self._claims[machine_id] = nics
            if is_migrating:
                self._migrating.add(machine_id)

    def claim(self, machine_id: str, nics: Nics, *, is_incoming: bool = False) -> None:
        """From now on this machine needs the segments of its ports, and the rules for them.

        `is_incoming`: its guest runs on another host until this is called again without."""
        with self._lock:
            before = self._claims.get(machine_id, ())
            self._claims[machine_id] = nics
            (self._migrating.add if is_incoming else self._migrating.discard)(machine_id)
            self.guard.ensure(nics, is_incoming=is_incoming)
            ports = {nic.port_id for nic in nics}
            self.guard.remove([nic for nic in before if nic.port_id not in ports])
            for nic in nics:
                self._known[nic.vni] = self.links.ensure_segment(nic)
            self._remove_unneeded({nic.vni for nic in before})
            refused = self._advertise()
            if any(self.links.bridge(nic.vni) in refused for nic in nics):
                raise LaunchFailed(NETWORK_FAILED)

    def mark_migrating(self, machine_id: str) -> None:
        """The guest of this machine may run on another host from now on, until `claim` brings it back."""
        with self._lock:
            self._migrating.add(machine_id)
            self.guard.allow_remote_macs(self._claims.get(machine_id, ()))

    def release(self, machine_id: str) -> None:
        """This machine needs nothing any more: segments that no other one needs go."""
        with self._lock:
            gone = self._claims.pop(machine_id, None)
            self._migrating.discard(machine_id)
            if gone is None:
                return
            # Links first: VXLAN devices never outlive the rules for them.
            self._remove_unneeded({nic.vni for nic in gone})
            if self._claims:
                self.guard.remove(gone)
            else:
                self.guard.close_down()
            self._advertise()

    def repair(self, running: Iterable[str]) -> None:
        """Links, rules and advertisements are as the running machines need them, whatever happened to them."""
        with self._lock:
            present = self.links.list_segments()
            self._remove_unneeded(present.keys() | self._known.keys())
            # Rules first, as in `claim`.
            here = [nic for one, nics in self._claims.items() if one not in self._migrating for nic in nics]
            if self._claims:
                self.guard.repair([nic for nics in self._claims.values() for nic in nics], here)
            else:
                self.guard.close_down()
            needed = [nic for machine_id in running for nic in self._claims.get(machine_id, ())]
            broken = {nic.vni for nic in needed if self._known.get(nic.vni, (0, 0)) != present.get(nic.vni)}
            for nic in needed:
                if nic.vni in broken:
                    self._known[nic.vni] = self.links.ensure_segment(nic)
                    self.links.ensure_tap_plugged(nic)
            self._advertise()

    def subscribe(self, watcher: Callable[[dict[int, int]], None]) -> None:
        """Tell it which bridges are here, now and whenever one may have come, gone or been made anew."""
        with self._lock:
            self._watcher = watcher
            watcher(self.bridges())

    def bridges(self) -> dict[int, int]:
        """Indices of the bridges that are here, and the VNI of each."""
        with self._lock:
            return {bridge: vni for vni, (bridge, _) in self._known.items()}

    def guest_spec(self, spec: MachineSpec) -> MachineSpec:
        """The spec as its guest is told it: with this host's resolvers where a network has none of its own."""
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
        """Whose address this is in a segment, as the rules against spoofing see it."""
        with self._lock:
            for machine_id, nics in self._claims.items():
                for nic in nics:
                    if nic.vni == vni and address in port_addresses(nic):
                        return machine_id
        return None

    def ipv4_mappings(self) -> tuple[tuple[IPv4Address, IPv6Address], ...]:
        """IPv4 addresses in front of guests of this host, and what each is mapped to."""
        with self._lock:
            nics = [nic for nics in self._claims.values() for nic in nics]
        pairs = [(nic.ipv4_address, nic.addresses[0].ip) for nic in nics if nic.ipv4_address and nic.addresses]
        return tuple(sorted(pairs))

    def close_down(self) -> None:
        """No segment, rule or radvd is left, whoever claims one."""
        with self._lock:
            self.router.apply(())
            for vni in self.links.list_segments():
                self.links.remove_segment(vni)
            self.guard.close_down()
            self._known.clear()
            self._watcher({})

    def _remove_unneeded(self, vnis: set[int]) -> None:
        needed = {nic.vni for nics in self._claims.values() for nic in nics}
        for vni in vnis - needed:
            self.links.remove_segment(vni)
            self._known.pop(vni, None)

    def _advertise(self) -> frozenset[str]:
        """Advertise what the segments present need; radvd reloads only when that has changed.

        Returns the bridges whose advertisement radvd refuses; the others are served."""
        ports: dict[int, list[NicSpec]] = {}
        for nics in self._claims.values():
            for nic in nics:
                if nic.addresses and nic.vni in self._known:
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
            source=METADATA,
            dns_servers=newest.dns_servers or self.dns_servers,
            dns_search=newest.dns_search or self.dns_search,
            gateway=newest.gateway is not None,
            routes=tuple(sorted({prefix for prefix, nexthop in newest.routes if nexthop == newest.gateway})),
        )
