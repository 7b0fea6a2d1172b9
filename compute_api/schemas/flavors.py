"""Request bodies of flavors, their access lists and extra specs."""

from typing import Annotated

from pydantic import Field

from app.core import errors
from app.web.bodies import Body, since
from compute_api.flavors import flavors
from compute_api.schemas.fields import Boolean, Integer, Name


class FlavorFields(Body):
    """The flavor of POST /flavors."""

    name: Name
    ram: Annotated[Integer, Field(ge=1, le=2**31 - 1)]
    vcpus: Annotated[Integer, Field(ge=1, le=2**31 - 1)]
    disk: Annotated[Integer, Field(ge=0, le=2**31 - 1)]
    id: Annotated[str | int | None, Field()] = None
    swap: Annotated[Integer, Field(ge=0)] = 0
    ephemeral: Annotated[Integer, Field(ge=0, alias="OS-FLV-EXT-DATA:ephemeral")] = 0
    rxtx_factor: float | str = 1.0
    is_public: Annotated[Boolean, Field(alias="os-flavor-access:is_public")] = True
    description: Annotated[str | None, Field(max_length=65535), since("2.55")] = None


class CreateFlavor(Body):
    """POST /flavors."""

    flavor: FlavorFields

    def new_flavor(self) -> flavors.NewFlavor:
        asked = self.flavor
        try:
            factor = float(asked.rxtx_factor)
            if not 0 < factor < float("inf"):
                raise ValueError
        except ValueError:
            raise errors.BadRequest(
                f"Invalid input for field/attribute rxtx_factor. Value: {asked.rxtx_factor}."
            ) from None
        flavor_id = None if asked.id is None or asked.id == "auto" else str(asked.id)
        if flavor_id is not None and not 1 <= len(flavor_id.strip()) <= 255:
            raise errors.BadRequest("Invalid input for field/attribute id. It has 1 to 255 characters.")
        return flavors.NewFlavor(
            id=flavor_id,
            name=asked.name,
            vcpus=asked.vcpus,
            ram=asked.ram,
            disk=asked.disk,
            swap=asked.swap,
            ephemeral=asked.ephemeral,
            rxtx_factor=factor,
            is_public=asked.is_public,
            description=asked.description,
        )


class UpdateFields(Body):
    """What PUT /flavors/{id} may change."""

    description: Annotated[str | None, Field(max_length=65535)]


class UpdateFlavor(Body):
    """PUT /flavors/{id}."""

    flavor: UpdateFields


class Tenant(Body):
    """Which project gains or loses access."""

    tenant: str


class AddAccess(Body):
    """The addTenantAccess action."""

    add: Annotated[Tenant, Field(alias="addTenantAccess")]


class RemoveAccess(Body):
    """The removeTenantAccess action."""

    remove: Annotated[Tenant, Field(alias="removeTenantAccess")]


class ExtraSpecs(Body):
    """POST of extra specs."""

    extra_specs: dict[str, str | int | float]
