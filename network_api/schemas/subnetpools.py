"""Bodies of /v2.0/subnetpools."""

from typing import Annotated, Any

from pydantic import Field

from app.web.bodies import Body
from network_api.schemas.fields import Name, OwnedBody, Prefix, Tags, must_be, must_be_empty

Length = Annotated[int | None, must_be(64, "64", None, why="Every subnet is a /64.")]


class SubnetPoolFields(OwnedBody):
    """Changeable fields of a subnet pool."""

    name: Name = ""
    description: Name = ""
    prefixes: Annotated[list[Prefix], Field(min_length=1)] = []
    default_prefixlen: Length = None
    min_prefixlen: Length = None
    max_prefixlen: Length = None
    is_default: Annotated[bool, must_be(False, None, why="The operator's prefix is the default pool.")] = False
    address_scope_id: Annotated[Any, must_be_empty("There are no address scopes: addresses are unique.")] = None
    default_quota: Annotated[Any, must_be_empty("Subnets are limited by the quota `subnet`.")] = None


class NewSubnetPoolFields(SubnetPoolFields):
    """Fields of a new subnet pool."""

    name: Name
    prefixes: Annotated[list[Prefix], Field(min_length=1)]
    shared: bool = False
    tags: Tags = []


class CreateSubnetPool(Body):
    """POST /subnetpools."""

    subnetpool: NewSubnetPoolFields


class ChangeSubnetPool(Body):
    """PUT /subnetpools/{id}."""

    subnetpool: SubnetPoolFields
