"""JSON out."""

from collections.abc import Mapping
from typing import Any

import orjson
from flask import Response


def json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(body), status=status, headers=headers, content_type="application/json")


def raw_json(body: bytes) -> Response:
    """An answer that is JSON already."""
    return Response(body, content_type="application/json")


def empty(status: int = 204, headers: Mapping[str, str] | None = None) -> Response:
    """An answer without a body."""
    response = Response(status=status, headers=headers)
    del response.headers["Content-Type"]
    return response
