"""Request body parsing: JSON to pydantic models; validation errors become 400 responses that name the field."""

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
"""Maximum size of a JSON body: sixteen times the largest user_data."""
MAX_DEPTH = 100
"""Maximum nesting of a JSON body. Stored values are returned in responses, whose encoder stops at 254 levels."""


@dataclass(frozen=True, slots=True)
class Since:
    """Annotation of a field that exists from this microversion on."""

    version: Version


@dataclass(frozen=True, slots=True)
class Until:
    """Annotation of a field that exists up to and including this microversion."""

    version: Version


def since(text: str) -> Since:
    """Mark a field as added in a microversion: `Annotated[str | None, since("2.19")]`."""
    return Since(v(text))


def until(text: str) -> Until:
    """Mark the last microversion of a field: `Annotated[str | None, until("2.56")]`."""
    return Until(v(text))


class Body(BaseModel):
    """Base of request bodies: rejects unknown fields and fields outside the requested microversion."""

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
    """Base of request bodies that ignore unknown fields, as in Keystone and Glance."""

    model_config = ConfigDict(extra="ignore")

    @classmethod
    def extras(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of `value` that the model does not define."""
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {name: item for name, item in value.items() if name not in known}

    def given(self) -> Self:
        """Return this body; `model_fields_set` are the fields that the client sent."""
        return self


Parsed = TypeVar("Parsed", bound=BaseModel)


def json_body() -> Any:
    """Decode the JSON body of this request.

    Raises BadRequest for invalid JSON or nesting over MAX_DEPTH. A body over MAX_BYTES is a 413 and is not read.
    """
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
    """Validate the body as the model. Raises BadRequest with the first invalid field and the reason."""
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
