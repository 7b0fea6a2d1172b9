"""Bulk creation: {"network": {…}} or {"networks": [{…}, …]} in one transaction."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flask import Response
from pydantic import BaseModel

from app.web.bodies import json_body, parse
from app.web.responses import json

New = TypeVar("New")


def create_response(
    name: str,
    one: type[BaseModel],
    several: type[BaseModel],
    create: Callable[[list[New]], list[Mapping[str, Any]]],
) -> Response:
    """Parse this request's body, create one or several resources and return the response."""
    body = json_body()
    collection = f"{name}s"
    if isinstance(body, Mapping) and collection in body:
        wanted: list[New] = getattr(parse(several, body), collection)
        return json({collection: create(wanted)}, 201)
    return json({name: create([getattr(parse(one, body), name)])[0]}, 201)
