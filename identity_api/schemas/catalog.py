"""Bodies of services, endpoints and regions."""

from typing import Annotated, Literal

from pydantic import StringConstraints

from identity_api.schemas.common import Fields, Flag, Id, Text

Type = Annotated[str, StringConstraints(min_length=1, max_length=255)]
RegionId = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r"^[a-zA-Z0-9+.-]+:.+")]
Interface = Literal["public", "internal", "admin"]


class NewService(Fields):
    type: Type
    name: Annotated[str, StringConstraints(max_length=255)] | None = None
    description: Text | None = None
    enabled: Flag = True


class ServiceChange(Fields):
    """Absent fields stay unchanged."""

    type: Type = ""
    name: Annotated[str, StringConstraints(max_length=255)] | None = None
    description: Text | None = None
    enabled: Flag = True


class NewEndpoint(Fields):
    interface: Interface
    service_id: Id
    url: Url
    region_id: RegionId | None = None
    region: RegionId | None = None
    enabled: Flag = True


class EndpointChange(Fields):
    """Absent fields stay unchanged."""

    interface: Interface = "public"
    service_id: Id = ""
    url: Url = ""
    region_id: RegionId | None = None
    region: RegionId | None = None
    enabled: Flag = True


class NewRegion(Fields):
    id: Annotated[str, StringConstraints(max_length=255)] | None = None
    description: Text | None = None
    parent_region_id: RegionId | None = None


class RegionChange(Fields):
    """Absent fields stay unchanged."""

    description: Text | None = None
    parent_region_id: RegionId | None = None
