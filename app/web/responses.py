"""JSON and empty responses."""

from collections.abc import Mapping
from typing import Any

import orjson
from flask import Response


def json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Build a response with the body encoded as JSON."""
    return Response(orjson.dumps(body), status=status, headers=headers, content_type="application/json")


def raw_json(body: bytes) -> Response:
    """Build a response from encoded JSON."""
    return Response(body, content_type="application/json")


def empty(status: int = 204, headers: Mapping[str, str] | None = None) -> Response:
    """Build a response without a body."""
    response = Response(status=status, headers=headers)
    del response.headers["Content-Type"]
    return response
