"""Links of identity's resources and collections."""

from typing import Any

from flask import request

from app.web.links import url
from app.web.pagination import query_after

JsonObject = dict[str, Any]


def with_self_link(kind: str, id_: str, rendered: JsonObject) -> JsonObject:
    """Add the self link; `kind` is the path of the collection below /v3."""
    rendered["links"] = {"self": url(f"/identity/v3/{kind}/{id_}")}
    return rendered


def collection(key: str, rendered: list[JsonObject], next_marker: str | None = None) -> JsonObject:
    """Render a collection with links to itself and to the next page."""
    following = None if next_marker is None else url(f"{request.path}?{query_after(next_marker)}")
    itself = url(request.full_path.rstrip("?"))
    return {key: rendered, "links": {"next": following, "self": itself, "previous": None}}
