"""Bodies of /v2.0/quotas."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from app.web.bodies import Body

Limit = Annotated[int | None, Field(ge=-1, le=2**31 - 1)]


class QuotaFields(Body):
    """New limits; -1 is unlimited. Unsupported resources can only have the limit 0."""

    model_config = ConfigDict(extra="allow")

    network: Limit = None
    subnet: Limit = None
    port: Limit = None
    subnetpool: Limit = None
    check_limit: bool = False
    force: bool = False
    tenant_id: str | None = None
    project_id: str | None = None

    @model_validator(mode="after")
    def _refuse_unsupported(self) -> "QuotaFields":
        for name, value in (self.model_extra or {}).items():
            if value not in (0, None):
                raise ValueError(f"The quota of {name} is 0 and cannot be changed: this cloud does not support it.")
        return self

    def limits(self) -> dict[str, Any]:
        """Return the limits that the client sent."""
        return {
            name: getattr(self, name)
            for name in ("network", "subnet", "port", "subnetpool")
            if name in self.model_fields_set and getattr(self, name) is not None
        }


class ChangeQuota(Body):
    """PUT /quotas/{project}."""

    quota: QuotaFields
