"""Lists of the network API: filters with several values, sort keys, keyset pagination in both directions.

A `Resource` declares the query, filters and sort keys of one kind. Results are plain rows; no ORM objects are loaded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, Row, Select, Text, and_, bindparam, cast, false, func, not_, or_, true
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from app.core.caller import Caller
from app.core.errors import BadRequest, NotFound
from app.core.numbers import parse_integer
from network_api.errors import InvalidInput
from network_api.visibility import restrict_to_visible, visibility_parameters

Reader = Session | Connection
"""Executes queries; a connection costs half as much as a session."""

ListedRow = Row[Any]

Filter = Callable[[Sequence[str]], ColumnElement[bool]]
"""Converts the values of a query parameter to a condition; several values are alternatives."""


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Parsed query string of a list. `sorts` are pairs of a wire name and `ascending`; limit 0 is unlimited."""

    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sorts: Sequence[tuple[str, bool]] = ()
    limit: int = 0
    marker: str | None = None
    reverse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Query, visibility, filters and sort keys of one resource."""

    query: Select[Any]
    key: ColumnElement[str]
    visible: ColumnElement[bool]
    filters: Mapping[str, Filter]
    sorts: Mapping[str, ColumnElement[Any]]
    not_found: Callable[[str], NotFound]
    _ready: dict[tuple[bool, tuple[str, ...]], Select[Any]] = field(default_factory=dict, compare=False)

    def rows(self, reader: Reader, caller: Caller, asked: ListQuery) -> list[Row[Any]]:
        """Return the rows of a list query.

        Raises BadRequest for an unknown filter or sort key, NotFound for an unknown marker.
        """
        unknown = [name for name in asked.filters if name not in self.filters]
        if unknown:
            raise BadRequest(f"{unknown} is invalid attribute for filtering")
        if self._is_plain(asked):
            return self._plain(reader, caller, {name: values[0] for name, values in asked.filters.items()})
        query = restrict_to_visible(caller, self.query, self.visible)
        for name, values in asked.filters.items():
            query = query.where(self.filters[name](values))
        order = self._order(asked)
        if asked.marker is not None:
            query = query.where(self._beyond(reader, caller, order, asked.marker))
        query = query.order_by(*(column.asc() if ascending else column.desc() for column, ascending in order))
        if asked.limit:
            query = query.limit(asked.limit)
        found = list(reader.execute(query, visibility_parameters(caller)).all())
        return found[::-1] if asked.reverse else found

    def row(self, reader: Reader, caller: Caller, key: str) -> Row[Any]:
        """Return one row. Raises the resource's NotFound when it does not exist or is not visible."""
        rows = self._plain(reader, caller, {"id": key})
        if not rows:
            raise self.not_found(key)
        return rows[0]

    def _is_plain(self, asked: ListQuery) -> bool:
        """Whether a cached statement serves the query: at most two equality filters, no sort keys and no page."""
        return (
            len(asked.filters) <= 2
            and not (asked.sorts or asked.limit or asked.reverse)
            and all(
                len(values) == 1 and values[0] and isinstance(self.filters[name], Equal)
                for name, values in asked.filters.items()
            )
        )

    def _plain(self, reader: Reader, caller: Caller, values: Mapping[str, str]) -> list[Row[Any]]:
        """Return rows with equal values. Statements are cached, as building one takes longer than executing it."""
        names = tuple(sorted(values))
        query = self._ready.get((caller.is_admin, names))
        filters = {name: found for name in names if isinstance(found := self.filters[name], Equal)}
        if query is None:
            query = restrict_to_visible(caller, self.query, self.visible).order_by(self.key)
            for name, found in filters.items():
                query = query.where(found.column == bindparam(f"filter_{name}", type_=found.column.type))
            self._ready[caller.is_admin, names] = query
        wanted = {f"filter_{name}": found.normalize(values[name]) for name, found in filters.items()}
        return list(reader.execute(query, {**visibility_parameters(caller), **wanted}).all())

    def _order(self, asked: ListQuery) -> list[tuple[ColumnElement[Any], bool]]:
        unknown = [name for name, _ in asked.sorts if name not in self.sorts]
        if unknown:
            raise BadRequest(f"{unknown} is invalid attribute for sort_keys")
        order = [(self.sorts[name], ascending != asked.reverse) for name, ascending in asked.sorts]
        return [*order, (self.key, not asked.reverse)]

    def _beyond(
        self, reader: Reader, caller: Caller, order: list[tuple[ColumnElement[Any], bool]], marker: str
    ) -> ColumnElement[bool]:
        """Return the keyset condition: rows behind the marker in lexicographic order of the sort columns."""
        at = reader.execute(
            restrict_to_visible(caller, self.query, self.visible)
            .where(self.key == marker)
            .with_only_columns(*(column for column, _ in order)),
            visibility_parameters(caller),
        ).one_or_none()
        if at is None:
            raise self.not_found(marker)
        steps = []
        for position, (column, ascending) in enumerate(order):
            equal = [before == value for (before, _), value in zip(order[:position], at, strict=False)]
            steps.append(and_(*equal, column > at[position] if ascending else column < at[position]))
        return or_(*steps)


@dataclass(frozen=True, slots=True)
class Equal:
    """Filter for equality with one of the values, which `normalize` converts to the stored form; "" matches null."""

    column: ColumnElement[Any]
    normalize: Callable[[str], str] = str

    def __call__(self, values: Sequence[str]) -> ColumnElement[bool]:
        found = self.column.in_([self.normalize(value) for value in values])
        return or_(found, self.column.is_(None)) if "" in values else found


def boolean_filter(column: ColumnElement[bool]) -> Filter:
    """Return a filter for a boolean column, with Neutron's spellings."""

    def condition(values: Sequence[str]) -> ColumnElement[bool]:
        return or_(*(column if parse_boolean(value) else not_(column) for value in values))

    return condition


def number(column: ColumnElement[int]) -> Filter:
    """Return a filter for equality with one of the numbers."""

    def condition(values: Sequence[str]) -> ColumnElement[bool]:
        try:
            numbers = [parse_integer(value) for value in values]
        except ValueError:
            raise InvalidInput(f"{list(values)} are not numbers.") from None
        return column.in_(numbers)

    return condition


def constant(value: str | int | bool | None) -> Filter:
    """Return a filter for an attribute with a constant value: it matches all rows or none."""

    def condition(values: Sequence[str]) -> ColumnElement[bool]:
        if isinstance(value, bool):
            return true() if any(parse_boolean(asked) == value for asked in values) else false()
        return true() if ("" if value is None else str(value)) in values else false()

    return condition


def tag_filters(column: ColumnElement[Any]) -> dict[str, Filter]:
    """Return the filters `tags` (all), `tags-any`, `not-tags` (not all) and `not-tags-any`; commas separate tags."""

    def tagged(values: Sequence[str]) -> list[ColumnElement[bool]]:
        names = [name for value in values for name in value.split(",") if name]
        return [_contains(column, name) for name in names]

    return {
        "tags": lambda values: and_(true(), *tagged(values)),
        "tags-any": lambda values: or_(false(), *tagged(values)),
        "not-tags": lambda values: not_(and_(true(), *tagged(values))),
        "not-tags-any": lambda values: not_(or_(false(), *tagged(values))),
    }


def parse_boolean(value: str) -> bool:
    """Parse a boolean in Neutron's spelling. Raises InvalidInput."""
    lowered = value.lower()
    if lowered in ("true", "1"):
        return True
    if lowered in ("false", "0"):
        return False
    raise InvalidInput(f"'{value}' cannot be converted to boolean")


def _contains(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Whether a JSON list contains a string: removing it changes the text. Works on SQLite and PostgreSQL."""
    written = cast(column, Text)
    return func.replace(written, orjson.dumps(name).decode(), "") != written
