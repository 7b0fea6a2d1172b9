"""Links, as every list and object of identity has them."""

from typing import Any

from flask import request

from app.web.links import url
from app.web.pagination import query_after

Shown = dict[str, Any]


def with_self_link(kind: str, id_: str, shown: Shown) -> Shown:
    """The object with the link to itself; `kind` is the path of its list, below /v3."""
    shown["links"] = {"self": url(f"/identity/v3/{kind}/{id_}")}
    return shown


def collection(key: str, shown: list[Shown], next_marker: str | None = None) -> Shown:
    """A list with links to itself and to the next page."""
    following = None if next_marker is None else url(f"{request.path}?{query_after(next_marker)}")
    itself = url(request.full_path.rstrip("?"))
    return {key: shown, "links": {"next": following, "self": itself, "previous": None}}
