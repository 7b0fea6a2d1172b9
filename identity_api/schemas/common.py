"""Field types of identity's request bodies."""

from typing import Annotated, Any

from pydantic import ConfigDict, StrictBool, StringConstraints

from app.web.bodies import Body

Id = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9-]+$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"\S")]
ShortName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"\S")]
Text = Annotated[str, StringConstraints(max_length=65535)]
Flag = StrictBool
Tag = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^,/]*$")]
Options = dict[str, Any]


class Fields(Body):
    """Fields of a resource; unknown fields are stored and returned, as in Keystone."""

    model_config = ConfigDict(extra="allow")

    def extra(self) -> dict[str, Any]:
        """Return the unknown fields, without `id` and `links`."""
        return {name: value for name, value in (self.model_extra or {}).items() if name not in ("id", "links")}

    def provided(self, *names: str) -> dict[str, Any]:
        """Return the named fields that are present in the request."""
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}
