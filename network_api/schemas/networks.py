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
    OwnedBody,
    Secured,
    Tags,
    must_be,
    must_be_empty,
)

Segment = Annotated[Any, must_be_empty(ONE_SEGMENT)]
PROVIDER = ("network_type", "physical_network", "segmentation_id")


class NetworkFields(OwnedBody):
    """Changeable fields of a network."""

    name: Name = ""
    description: Name = ""
    admin_state_up: bool = True
    shared: bool = False
    isolated: bool = False
    router_external: Annotated[bool, must_be(False, why=NEVER_EXTERNAL), Field(alias="router:external")] = False
    is_default: Annotated[bool, must_be(False, None, why="The operator's network is the default one.")] = False
    port_security_enabled: Secured = True
    network_type: Annotated[Any, Field(alias="provider:network_type")] = None
    physical_network: Annotated[Any, Field(alias="provider:physical_network")] = None
    segmentation_id: Annotated[Any, Field(alias="provider:segmentation_id")] = None
    segments: Segment = None
    vlan_transparent: Segment = None
    mtu: Annotated[Any, must_be_empty("The MTU follows from the cloud's uplink.")] = None
    qos_policy_id: Annotated[Any, must_be_empty(NO_QOS)] = None
    dns_domain: Annotated[Any, must_be_empty("There is no DNS integration.")] = None
    availability_zone_hints: Annotated[Any, must_be_empty(NO_ZONES)] = None

    def provider_attributes(self) -> list[str]:
        """Return the names of the provider attributes with a value; no caller may set any."""
        fields = type(self).model_fields
        wanted = [name for name in PROVIDER if getattr(self, name) not in (None, "")]
        return [str(fields[name].alias) for name in wanted]


class NewNetworkFields(NetworkFields):
    """Fields of a new network."""

    tags: Tags = []


class CreateNetwork(Body):
    """POST /networks."""

    network: NewNetworkFields


class CreateNetworks(Body):
    """POST /networks with several."""

    networks: Annotated[list[NewNetworkFields], Field(min_length=1)]


class ChangeNetwork(Body):
    """PUT /networks/{id}."""

    network: NetworkFields
