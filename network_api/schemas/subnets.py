"""Bodies of /v2.0/subnets."""

from typing import Annotated, Any

from pydantic import Field

from app.web.bodies import Body
from network_api.errors import InvalidInput
from network_api.schemas.fields import (
    ALWAYS_SLAAC,
    NO_IPV4,
    NO_POOLS,
    Address,
    Name,
    Nameservers,
    OwnedBody,
    Prefix,
    Tags,
    must_be,
    must_be_empty,
)

ONLY_64 = "Servers configure their addresses by SLAAC, which requires a /64."
MAX_HOST_ROUTES = 20
"""Maximum number of host routes per subnet, as in Neutron."""
Slaac = Annotated[str | None, must_be("slaac", None, why=ALWAYS_SLAAC)]


class HostRoute(Body):
    """A static route of servers: destination prefix and next hop."""

    destination: Prefix
    nexthop: Address


class AllocationPool(Body):
    """A range of addresses, both ends included."""

    start: Address
    end: Address


class SubnetFields(OwnedBody):
    """Changeable fields of a subnet. Without a gateway (`gateway_ip` null) the network is not routed."""

    name: Name = ""
    description: Name = ""
    gateway_ip: Address | None = None
    dns_nameservers: Nameservers = []
    enable_dhcp: Annotated[bool, must_be(True, why=ALWAYS_SLAAC)] = True
    allocation_pools: list[AllocationPool] | None = None
    host_routes: Annotated[list[HostRoute] | None, Field(max_length=MAX_HOST_ROUTES)] = None
    service_types: Annotated[Any, must_be_empty("Every subnet serves every kind of port.")] = None
    segment_id: Annotated[Any, must_be_empty("A network has one segment.")] = None
    dns_publish_fixed_ip: Annotated[Any, must_be_empty("There is no DNS integration.")] = None

    @property
    def routes(self) -> list[dict[str, str]]:
        """The host routes as stored."""
        return [
            {"destination": str(route.destination), "nexthop": str(route.nexthop)} for route in self.host_routes or ()
        ]

    def check_pools(self, *known: list[dict[str, str]]) -> None:
        """Raise InvalidInput for other allocation pools than `known`; clients may send back the pools of a response."""
        if self.allocation_pools:
            wanted = [{"start": str(pool.start), "end": str(pool.end)} for pool in self.allocation_pools]
            if wanted not in known:
                raise InvalidInput(NO_POOLS)


class NewSubnetFields(SubnetFields):
    """Fields of a new subnet."""

    network_id: str
    ip_version: Annotated[int, must_be(6, "6", why=NO_IPV4)] = 6
    cidr: Prefix | None = None
    prefixlen: Annotated[int | None, must_be(64, "64", None, why=ONLY_64)] = None
    subnetpool_id: str | None = None
    use_default_subnetpool: bool = False
    use_default_subnet_pool: bool = False
    ipv6_ra_mode: Slaac = None
    ipv6_address_mode: Slaac = None
    tags: Tags = []


class CreateSubnet(Body):
    """POST /subnets."""

    subnet: NewSubnetFields


class CreateSubnets(Body):
    """POST /subnets with several."""

    subnets: Annotated[list[NewSubnetFields], Field(min_length=1)]


class ChangeSubnet(Body):
    """PUT /subnets/{id}."""

    subnet: SubnetFields
