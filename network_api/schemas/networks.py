"""Bodies of /v2.0/networks."""

from typing import Annotated, Any

from pydantic import Field

from app.web.bodies import Body
from network_api.schemas.fields import (
    NEVER_EXTERNAL,
    NO_QOS,
    NO_ZONES,
    ONE_SEGMENT,
    Name,
    Owned,
    Secured,
    Tags,
    nothing,
    only,
)

Segment = Annotated[Any, nothing(ONE_SEGMENT)]


class ChangedNetwork(Owned):
    """What can be changed of a network."""

    name: Name = ""
    description: Name = ""
    admin_state_up: bool = True
    shared: bool = False
    isolated: bool = False
    router_external: Annotated[bool, only(False, why=NEVER_EXTERNAL), Field(alias="router:external")] = False
    is_default: Annotated[bool, only(False, None, why="The operator's network is the default one.")] = False
    port_security_enabled: Secured = True
    network_type: Annotated[Segment, Field(alias="provider:network_type")] = None
    physical_network: Annotated[Segment, Field(alias="provider:physical_network")] = None
    segmentation_id: Annotated[Segment, Field(alias="provider:segmentation_id")] = None
    segments: Segment = None
    vlan_transparent: Segment = None
    mtu: Annotated[Any, nothing("The MTU follows from the cloud's uplink.")] = None
    qos_policy_id: Annotated[Any, nothing(NO_QOS)] = None
    dns_domain: Annotated[Any, nothing("There is no DNS integration.")] = None
    availability_zone_hints: Annotated[Any, nothing(NO_ZONES)] = None


class NewNetwork(ChangedNetwork):
    """What a network is created with."""

    tags: Tags = []


class CreateNetwork(Body):
    """POST /networks."""

    network: NewNetwork


class CreateNetworks(Body):
    """POST /networks with several."""

    networks: Annotated[list[NewNetwork], Field(min_length=1)]


class ChangeNetwork(Body):
    """PUT /networks/{id}."""

    network: ChangedNetwork
