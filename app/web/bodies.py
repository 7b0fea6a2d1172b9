"""Request bodies: JSON → pydantic model, with every error a 400 that names the field."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import orjson
from flask import request
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator

from app.core import errors
from app.web.microversion import Version, v

MALFORMED = "The server could not comply with the request since it is either malformed or otherwise incorrect."


MAX_BYTES = 1 << 20
"""Bytes of a JSON body: sixteen times the largest user_data."""
MAX_DEPTH = 100
"""Levels of arrays and objects in a JSON body; what is kept is written into answers, whose encoder stops at 254."""


@dataclass(frozen=True, slots=True)
class Since:
    """A field that exists from this microversion on."""

    version: Version


@dataclass(frozen=True, slots=True)
class Until:
    """A field that exists up to and with this microversion."""

    version: Version


def since(text: str) -> Since:
    """`Annotated[str | None, since("2.19")]`."""
    return Since(v(text))


def until(text: str) -> Until:
    """`Annotated[str | None, until("2.56")]`."""
    return Until(v(text))


class Body(BaseModel):
    """A body in which unknown fields are errors, and fields of other microversions are unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, strict=False)

    @model_validator(mode="before")
    @classmethod
    def _versioned(cls, value: Any, context: ValidationInfo) -> Any:
        version: Version | None = (context.context or {}).get("version")
        if version is None or not isinstance(value, Mapping):
            return value
        for name, field in cls.model_fields.items():
            wire = field.alias or name
            for mark in field.metadata:
                outside = (isinstance(mark, Since) and version < mark.version) or (
                    isinstance(mark, Until) and version > mark.version
                )
                if outside and wire in value:
                    raise ValueError(f"Additional properties are not allowed ('{wire}' was unexpected)")
        return value


class OpenBody(Body):
    """A body whose unknown fields are passed over, as Keystone and Glance do."""

    model_config = ConfigDict(extra="ignore")

    @classmethod
    def extras(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of `value` that this model does not know."""
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {name: item for name, item in value.items() if name not in known}

    def given(self) -> Self:
        """Itself; `model_fields_set` says which fields the client sent."""
        return self


Parsed = TypeVar("Parsed", bound=BaseModel)


def json_body() -> Any:
    """The JSON of this request. Raises BadRequest when it is none, or is nested deeper than DEEPEST; a body over
    LARGEST bytes is a 413, unread."""
    request.max_content_length = min(request.max_content_length or MAX_BYTES, MAX_BYTES)
    text = request.get_data(cache=False)
    try:
        body = orjson.loads(text or b"null")
    except orjson.JSONDecodeError:
        raise errors.BadRequest(MALFORMED) from None
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _is_deeper(body, MAX_DEPTH):
        raise errors.BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
    return body


def _is_deeper(body: Any, levels: int) -> bool:
    level = [body]
    for _ in range(levels):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return any(isinstance(value, dict | list) for value in level)


def parse(model: type[Parsed], body: Any, version: Version | None = None) -> Parsed:
    """The body as the model. Raises BadRequest that names the first field that is wrong and why."""
    if not isinstance(body, Mapping):
        raise errors.BadRequest(MALFORMED)
    try:
        return model.model_validate(body, context={"version": version})
    except ValidationError as error:
        raise errors.BadRequest(_describe_error(error)) from None


def _describe_error(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    where = [str(part) for part in first["loc"]]
    name = where[-1] if where else "body"
    if first["type"] == "extra_forbidden":
        return f"Additional properties are not allowed ('{name}' was unexpected)"
    if first["type"] == "missing":
        return f"Invalid input for field/attribute {'.'.join(where[:-1]) or 'body'}. '{name}' is a required property"
    reason = first["msg"].removeprefix("Value error, ")
    value = repr(first["input"])
    shown = value if len(value) <= 200 else f"{value[:200]}…"
    return f"Invalid input for field/attribute {'.'.join(where) or name}. Value: {shown}. {reason}"
