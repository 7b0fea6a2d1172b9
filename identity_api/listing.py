"""Filtering and pagination of lists: Keystone's filters (`name__contains`), `limit` and `marker`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, func, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.core import errors
from app.core.booleans import parse_boolean
from app.core.numbers import parse_capped_integer
from identity_api.conflicts import same_name

Row = TypeVar("Row")

OPERATORS = ("contains", "icontains", "startswith", "istartswith", "endswith", "iendswith")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """One page of rows; `next_marker` is the id of its last row if more rows follow."""

    rows: Sequence[Row]
    next_marker: str | None = None


def parse_flag(text: str) -> bool:
    """Parse a boolean query parameter as Keystone does: true unless it is a word for false; also when empty."""
    return parse_boolean(text) is not False


def list_page(
    session: Session,
    query: Select[Row],
    arguments: Mapping[str, str],
    *,
    sort_key: InstrumentedAttribute[Any],
    id_column: InstrumentedAttribute[str],
    filters: Mapping[str, InstrumentedAttribute[Any]] | None = None,
    boolean_filters: Mapping[str, InstrumentedAttribute[bool]] | None = None,
) -> Page[Row]:
    """Filter, sort and paginate the query by the request's query parameters.

    `filters` are compared for equality (names case-insensitively) or by an operator such as `name__contains`;
    `boolean_filters` are parsed by `parse_flag`. Other parameters are ignored. Raises BadRequest for a limit that is
    not a positive number, NotFound for an unknown marker.
    """
    for name, column in (filters or {}).items():
        if name in arguments:
            expected = arguments[name]
            query = query.where(same_name(column, expected) if name == "name" else column == expected)
        for operator in OPERATORS:
            if (value := arguments.get(f"{name}__{operator}")) is not None:
                query = query.where(_comparison(column, operator, value))
    for name, column in (boolean_filters or {}).items():
        if name in arguments:
            query = query.where(column == parse_flag(arguments[name]))
    query = query.order_by(sort_key, id_column)
    if (marker := arguments.get("marker")) is not None:
        position = session.execute(_marker_query(sort_key, id_column, marker)).first()
        if position is None:
            raise errors.NotFound(f"Marker {marker} could not be found.")
        query = query.where(tuple_(sort_key, id_column) > tuple_(position[0], position[1]))
    limit = _parse_limit(arguments)
    if limit is None:
        return Page(session.scalars(query).all())
    rows = session.scalars(query.limit(limit + 1)).all()
    if len(rows) <= limit:
        return Page(rows)
    return Page(rows[:limit], getattr(rows[limit - 1], id_column.key))


def _marker_query(
    sort_key: InstrumentedAttribute[Any], id_column: InstrumentedAttribute[str], marker: str
) -> Select[tuple[Any, str]]:
    return select(sort_key, id_column).where(id_column == marker)


def _parse_limit(arguments: Mapping[str, str]) -> int | None:
    text = arguments.get("limit")
    if text is None or text == "":
        return None
    try:
        limit = parse_capped_integer(text)
    except ValueError:
        limit = 0
    if limit <= 0:
        raise errors.BadRequest(
            f"Invalid input for field/attribute limit. Value: {text}. It must be a positive number."
        )
    return min(limit, 10_000)


def _comparison(column: InstrumentedAttribute[Any], operator: str, value: str) -> ColumnElement[bool]:
    if operator.startswith("i"):
        return getattr(func.lower(column), operator[1:])(value.lower(), autoescape=True)  # type: ignore[no-any-return]
    if operator == "contains":
        return func.replace(column, value, "") != column if value else column.is_not(None)
    length = len(value)
    if operator == "startswith":
        return func.substr(column, 1, length) == value
    return func.substr(column, func.length(column) - length + 1, length) == value
