"""Query strings of lists (filters, fields, sort keys, page) and responses with page links."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from flask import Response, request

from app.core.errors import BadRequest
from app.core.numbers import parse_integer
from app.web.context import caller, database
from app.web.links import url
from app.web.responses import json
from network_api.listings.listing import ListedRow, ListQuery, Resource

CONTROL_PARAMETERS = frozenset({"fields", "sort_key", "sort_dir", "limit", "marker", "page_reverse"})

Document = dict[str, Any]

View = Callable[[ListedRow], Document]
"""Renders a row of a list."""


def parse_list_query() -> ListQuery:
    """Parse this request's query string. Raises BadRequest."""
    arguments = request.args
    if arguments.keys().isdisjoint(CONTROL_PARAMETERS):
        return ListQuery(filters=dict(arguments.lists()))
    text = arguments.get("limit", "0")
    try:
        limit = parse_integer(text)
    except ValueError:
        limit = -1
    if limit < 0:
        raise BadRequest(f"Bad limit request: Limit must be an integer 0 or greater and not '{text}'.")
    return ListQuery(
        filters={name: values for name, values in arguments.lists() if name not in CONTROL_PARAMETERS},
        sorts=_sorts(),
        limit=limit,
        marker=(arguments.get("marker") or None) if limit else None,
        reverse=arguments.get("page_reverse", "").lower() == "true",
    )


def list_response(resource: Resource, collection: str, view: View) -> Response:
    """Return the list response of this request."""
    wanted = parse_list_query()
    with database().reader.connect() as connection:
        rows = resource.rows(connection, caller(), wanted)
    body: Document = {collection: select_fields([view(row) for row in rows])}
    if wanted.limit and (links := _links(wanted, [row.id for row in rows])):
        body[f"{collection}_links"] = links
    return json(body)


def show_response(resource: Resource, name: str, key: str, view: View) -> Response:
    """Return the response with one resource."""
    with database().reader.connect() as connection:
        row = resource.row(connection, caller(), key)
    return json({name: select_fields([view(row)])[0]})


def select_fields(documents: Sequence[Document]) -> list[Document]:
    """Reduce the documents to the `fields` of this request, if it has any."""
    names = [name for name in request.args.getlist("fields") if name] if request.args else []
    if not names:
        return list(documents)
    return [{name: document[name] for name in names if name in document} for document in documents]


def _sorts() -> list[tuple[str, bool]]:
    keys = [key for key in request.args.getlist("sort_key") if key]
    directions = [direction for direction in request.args.getlist("sort_dir") if direction]
    if len(keys) != len(directions):
        raise BadRequest("The number of sort_keys and sort_dirs must be same")
    wrong = [direction for direction in directions if direction not in ("asc", "desc")]
    if wrong:
        raise BadRequest(f"{wrong} is invalid value for sort_dirs, valid value is 'asc' and 'desc'")
    return [(key, direction == "asc") for key, direction in zip(keys, directions, strict=True)]


def _links(wanted: ListQuery, ids: Sequence[str]) -> list[dict[str, str]]:
    """Links to the next and previous page. A page that is not full is the last one in its direction."""
    full = len(ids) >= wanted.limit
    links = []
    if full or wanted.reverse:
        links.append({"rel": "next", "href": _page(ids[-1:], reverse=False)})
    if full or not wanted.reverse:
        links.append({"rel": "previous", "href": _page(ids[:1], reverse=True)})
    return links


def _page(marker: Sequence[str], *, reverse: bool) -> str:
    pairs = [(name, value) for name, value in request.args.items(multi=True) if name not in ("marker", "page_reverse")]
    pairs += [("marker", key) for key in marker]
    if reverse:
        pairs.append(("page_reverse", "True"))
    return f"{url(request.path)}?{urlencode(pairs)}"
