"""Bodies of /v2.0/subnetpools."""

from typing import Annotated, Any

from pydantic import Field

from app.web.bodies import Body
from network_api.schemas.fields import Name, Owned, Prefix, Tags, nothing, only

Length = Annotated[int | None, only(64, "64", None, why="Every subnet is a /64.")]


class ChangedSubnetPool(Owned):
    """What can be changed of a subnet pool."""

    name: Name = ""
    description: Name = ""
    prefixes: Annotated[list[Prefix], Field(min_length=1)] = []
    default_prefixlen: Length = None
    min_prefixlen: Length = None
    max_prefixlen: Length = None
    is_default: Annotated[bool, only(False, None, why="The operator's prefix is the default pool.")] = False
    address_scope_id: Annotated[Any, nothing("There are no address scopes: addresses are unique.")] = None
    default_quota: Annotated[Any, nothing("Subnets are limited by the quota `subnet`.")] = None


class NewSubnetPool(ChangedSubnetPool):
    """What a subnet pool is created with."""

    name: Name
    prefixes: Annotated[list[Prefix], Field(min_length=1)]
    shared: bool = False
    tags: Tags = []


class CreateSubnetPool(Body):
    """POST /subnetpools."""

    subnetpool: NewSubnetPool


class ChangeSubnetPool(Body):
    """PUT /subnetpools/{id}."""

    subnetpool: ChangedSubnetPool
