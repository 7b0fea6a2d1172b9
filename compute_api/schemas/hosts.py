"""Request bodies of aggregates, services and hosts."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from app.web.bodies import Body, since
from compute_api.schemas.fields import Boolean, Name


class AggregateFields(Body):
    """A new aggregate."""

    name: Name
    availability_zone: Name | None = None


class CreateAggregate(Body):
    """POST /os-aggregates."""

    aggregate: AggregateFields


class UpdateAggregateFields(Body):
    """What PUT may change."""

    name: Name | None = None
    availability_zone: Name | None = None


class UpdateAggregate(Body):
    """PUT /os-aggregates/{id}."""

    aggregate: UpdateAggregateFields


class HostReference(Body):
    """Which host."""

    host: Annotated[str, Field(min_length=1, max_length=255)]


class AddHost(Body):
    """The add_host action."""

    add_host: HostReference


class RemoveHost(Body):
    """The remove_host action."""

    remove_host: HostReference


class AggregateMetadata(Body):
    """Items; null removes one."""

    metadata: dict[Annotated[str, Field(min_length=1, max_length=255)], Annotated[str, Field(max_length=255)] | None]


class SetMetadata(Body):
    """The set_metadata action."""

    set_metadata: AggregateMetadata


Reason = Annotated[str, Field(min_length=1, max_length=255)]


class EnableService(Body):
    """The service of the older calls."""

    host: Annotated[str, Field(min_length=1, max_length=255)]
    binary: Annotated[str, Field(min_length=1, max_length=255)]
    disabled_reason: Reason | None = None


class ForceServiceDown(Body):
    """PUT /os-services/force-down."""

    host: Annotated[str, Field(min_length=1, max_length=255)]
    binary: Annotated[str, Field(min_length=1, max_length=255)]
    forced_down: Boolean = False


class UpdateService(Body):
    """PUT /os-services/{id}."""

    status: Literal["enabled", "disabled"] | None = None
    disabled_reason: Reason | None = None
    forced_down: Annotated[Boolean | None, since("2.53")] = None


Switch = Annotated[
    Literal["enable", "disable"], BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
]


class UpdateHost(Body):
    """PUT /os-hosts/{name}."""

    status: Switch | None = None
    maintenance_mode: Switch | None = None
