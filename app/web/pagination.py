"""Pagination by limit and marker, and links to the next page."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from flask import request
from werkzeug.datastructures import MultiDict

from app.core import errors
from app.core.numbers import parse_capped_integer

MAXIMUM = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list. `marker` is the id of the last item of the previous page."""

    limit: int
    marker: str | None


def page(arguments: MultiDict[str, str], *, default: int = MAXIMUM, maximum: int = MAXIMUM) -> Page:
    """Parse `limit`, capped at `maximum`, and `marker` of a query string. Raises BadRequest for an invalid limit."""
    text = arguments.get("limit")
    if text is None or text == "":
        return Page(default, arguments.get("marker") or None)
    try:
        limit = parse_capped_integer(text)
    except ValueError:
        raise errors.BadRequest("limit param must be an integer") from None
    if limit < 0:
        raise errors.BadRequest("limit param must be positive")
    return Page(min(limit, maximum), arguments.get("marker") or None)


def query_after(marker: str, extra: Mapping[str, str] | None = None) -> str:
    """Return this request's query string with the marker of the next page."""
    pairs = [(key, value) for key, value in request.args.items(multi=True) if key != "marker"]
    return urlencode([*pairs, *(extra or {}).items(), ("marker", marker)])
