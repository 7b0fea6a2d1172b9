"""Kinds of values that bodies of identity are made of."""

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
    """Fields of an object; those that nobody knows are kept and shown again, as Keystone does."""

    model_config = ConfigDict(extra="allow")

    def extra(self) -> dict[str, Any]:
        """The fields that the schema does not know. `id` and `links` are never among them."""
        return {name: value for name, value in (self.model_extra or {}).items() if name not in ("id", "links")}

    def given(self, *names: str) -> dict[str, Any]:
        """Those of these fields that the client sent."""
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}
