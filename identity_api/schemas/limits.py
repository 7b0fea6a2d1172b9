"""Bodies of limits and registered limits; requests create several at once."""

from typing import Annotated

from pydantic import Field, StrictInt, StringConstraints, model_validator

from app.web.bodies import Body
from identity_api.schemas.catalog import RegionId
from identity_api.schemas.common import Id, Text

Amount = Annotated[StrictInt, Field(ge=-1, le=0x7FFFFFFF)]
Resource = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class NewRegisteredLimit(Body):
    service_id: Id
    region_id: RegionId | None = None
    resource_name: Resource
    default_limit: Amount
    description: Text | None = None


class NewRegisteredLimits(Body):
    registered_limits: Annotated[list[NewRegisteredLimit], Field(min_length=1)]


class RegisteredLimitChange(Body):
    """Absent fields stay unchanged."""

    service_id: Id = ""
    region_id: RegionId | None = None
    resource_name: Resource = ""
    default_limit: Amount = 0
    description: Text | None = None


class NewLimit(Body):
    service_id: Id
    project_id: Id | None = None
    domain_id: Id | None = None
    region_id: RegionId | None = None
    resource_name: Resource
    resource_limit: Amount
    description: Text | None = None

    @model_validator(mode="after")
    def _check_exactly_one(self) -> "NewLimit":
        if (self.project_id is None) == (self.domain_id is None):
            raise ValueError("exactly one of project_id and domain_id is required")
        return self


class NewLimits(Body):
    limits: Annotated[list[NewLimit], Field(min_length=1)]


class LimitChange(Body):
    """Absent fields stay unchanged."""

    resource_limit: Amount = 0
    description: Text | None = None
