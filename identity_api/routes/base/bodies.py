"""Parsing of request bodies: `{"user": {...}}`, with Keystone's size limit and error messages."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from flask import g, request
from pydantic import BaseModel, ValidationError

from app.core import errors
from app.web.bodies import json_body

Parsed = TypeVar("Parsed", bound=BaseModel)
MAX_BYTES = 114_688
"""Keystone's limit; bounds the memory that unauthenticated log-ins can use."""


def json_object() -> Mapping[str, Any]:
    """Return the JSON object of this request, cached in `g`. Raises BadRequest for anything else."""
    if "identity_body" not in g:
        request.max_content_length = MAX_BYTES
        body = json_body()
        if not isinstance(body, Mapping):
            raise errors.BadRequest(
                "Expecting to find valid JSON in request body. The server could not comply with the request since it "
                "is either malformed or otherwise incorrect. The client is assumed to be in error."
            )
        g.identity_body = body
    return cast(Mapping[str, Any], g.identity_body)


def json_member(key: str) -> Mapping[str, Any]:
    """Return the object under this key of the body. Raises BadRequest if it is missing."""
    inner = json_object().get(key)
    if not isinstance(inner, Mapping):
        raise errors.BadRequest(
            f"Expecting to find {key} in request body. The server could not comply with the request since it is "
            "either malformed or otherwise incorrect. The client is assumed to be in error."
        )
    return cast(Mapping[str, Any], inner)


def parse_member(model: type[Parsed], key: str) -> Parsed:
    """Validate the object under this key of the body. Raises BadRequest."""
    return parse_body(model, json_member(key))


def parse_body(model: type[Parsed], body: Mapping[str, Any]) -> Parsed:
    """Validate the body. Raises BadRequest naming the field but not its value, which may be secret."""
    try:
        return model.model_validate(body, context={})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        raise errors.BadRequest(f"'{where}' is a required property")
    if first["type"] == "extra_forbidden":
        raise errors.BadRequest(f"Additional properties are not allowed ('{where}' was unexpected)")
    reason = first["msg"].removeprefix("Value error, ")
    raise errors.BadRequest(f"Invalid input for field '{where or 'body'}': {reason}")
