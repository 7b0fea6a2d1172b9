"""Bodies of /v2.0/ports."""

from ipaddress import IPv6Network
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from app.web.bodies import Body
from network_api.schemas.fields import (
    NO_QOS,
    NO_SECURITY_GROUPS,
    SERVER_BINDS,
    Address,
    Ipv4Address,
    Name,
    OwnedBody,
    Prefix,
    Secured,
    Tags,
    must_be,
    must_be_empty,
)

MAX_ADDRESS_PAIRS = 10
"""Maximum number of allowed address pairs per port, as in Neutron."""


def _refuse_reserved_owner(value: str) -> str:
    if value.startswith(("compute:", "network:")):
        raise ValueError(SERVER_BINDS)
    return value


class FixedIp(Body):
    """An address, or a subnet to allocate one from."""

    subnet_id: str | None = None
    ip_address: Address | None = None


class AddressPair(Body):
    """Additional source address or prefix of a port; the MAC defaults to the port's."""

    ip_address: Prefix
    mac_address: str | None = None


class PortFields(OwnedBody):
    """Changeable fields of a port. An empty `fixed_ips` removes the address."""

    name: Name = ""
    description: Name = ""
    admin_state_up: bool = True
    mac_address: str | None = None
    fixed_ips: Annotated[list[FixedIp] | None, Field(max_length=1)] = None
    device_id: Annotated[Any, must_be_empty(SERVER_BINDS)] = ""
    device_owner: Annotated[Name, AfterValidator(_refuse_reserved_owner)] = ""
    security_groups: Annotated[Any, must_be_empty(NO_SECURITY_GROUPS)] = None
    port_security_enabled: Secured = True
    allowed_address_pairs: Annotated[list[AddressPair] | None, Field(max_length=MAX_ADDRESS_PAIRS)] = None
    ipv4_address: Ipv4Address = None
    extra_dhcp_opts: Annotated[Any, must_be_empty("There is no DHCP.")] = None
    qos_policy_id: Annotated[Any, must_be_empty(NO_QOS)] = None
    dns_name: Annotated[Any, must_be_empty("There is no DNS integration.")] = None
    vnic_type: Annotated[
        str, must_be("normal", why="There are virtio taps only."), Field(alias="binding:vnic_type")
    ] = "normal"
    host_id: Annotated[Name | None, Field(alias="binding:host_id")] = None
    profile: Annotated[Any, must_be_empty(SERVER_BINDS), Field(alias="binding:profile")] = None

    @property
    def pairs(self) -> list[tuple[IPv6Network, str | None]]:
        """The allowed address pairs."""
        return [(pair.ip_address, pair.mac_address) for pair in self.allowed_address_pairs or ()]


class NewPortFields(PortFields):
    """Fields of a new port."""

    network_id: str
    tags: Tags = []


class CreatePort(Body):
    """POST /ports."""

    port: NewPortFields


class CreatePorts(Body):
    """POST /ports with several."""

    ports: Annotated[list[NewPortFields], Field(min_length=1)]


class ChangePort(Body):
    """PUT /ports/{id}."""

    port: PortFields
