"""Image list queries: filters, sorting and pagination."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, cast, func, literal, or_, select
from sqlalchemy import String as SqlString
from sqlalchemy.dialects.postgresql import JSONB

from app.core import errors
from app.core.booleans import parse_boolean
from app.core.caller import Caller
from app.core.numbers import parse_integer
from image_api.images import is_visible, visible_to
from image_api.models import Image, ImageMember
from image_api.states import STORED, MemberStatus, Visibility

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

SORT_KEYS: Mapping[str, ColumnElement[Any]] = {
    "name": func.coalesce(Image.name, ""),
    "status": Image.status.expression,
    "container_format": func.coalesce(Image.container_format, ""),
    "disk_format": func.coalesce(Image.disk_format, ""),
    "size": func.coalesce(Image.size, -1),
    "virtual_size": func.coalesce(Image.virtual_size, -1),
    "id": Image.id.expression,
    "created_at": Image.created_at.expression,
    "updated_at": Image.updated_at.expression,
    "visibility": Image.visibility.expression,
    "owner": Image.owner.expression,
    "min_disk": Image.min_disk.expression,
    "min_ram": Image.min_ram.expression,
    "protected": Image.protected.expression,
}
"""Sort key → SQL expression. Unset values sort first."""

NUMBERS = ("min_disk", "min_ram", "size", "virtual_size")
TEXTS = (
    "id",
    "name",
    "status",
    "container_format",
    "disk_format",
    "owner",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
)
IN_FILTERS = frozenset({"id", "name", "status", "container_format", "disk_format"})
TIMES = ("created_at", "updated_at")
COMPARISONS = ("gt", "gte", "lt", "lte", "eq", "neq")
MARKER_POSITION = "sixstack_place"
"""Query parameter of `next` links: the sort position of the marker, used when the marker image has been deleted."""
NOT_FILTERS = frozenset({"limit", "marker", MARKER_POSITION, "sort", "sort_key", "sort_dir", "member_status"})


@dataclass(frozen=True, slots=True)
class Order:
    """Sort key and direction."""

    key: str
    descending: bool


@dataclass(frozen=True, slots=True)
class ImageListQuery:
    """The parsed query string of an image list; `filters` maps names to raw values. The page starts after the image
    `marker`, or after the sort position `place` when that image no longer exists."""

    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    order: Sequence[Order] = (Order("created_at", True),)
    limit: int = 25
    marker: str | None = None
    place: str | None = None
    member_status: str | None = None


_SELECT_BY_ID = select(Image.__table__).where(Image.id == bindparam("image_id"))


def find_row(connection: Connection, caller: Caller, image_id: str) -> Row[Any]:
    """Return an image visible to the caller as a Core row, without ORM overhead. Raises NotFound."""
    row = connection.execute(_SELECT_BY_ID, {"image_id": image_id}).one_or_none()
    if row is None or not is_visible(connection, caller, row):
        raise errors.NotFound(f"No image found with ID {image_id}")
    return row


def list_images(connection: Connection, caller: Caller, wanted: ImageListQuery) -> Sequence[Row[Any]]:
    """Return one page as Core rows.

    Raises BadRequest for an invalid filter value and for a marker that the caller cannot see.
    """
    dialect = connection.dialect.name
    query = select(Image.__table__).where(_visibility_condition(caller, wanted))
    for name, values in wanted.filters.items():
        if name in ("visibility",):
            continue
        for value in values:
            query = query.where(_condition(dialect, name, value))
    if "os_hidden" not in wanted.filters:
        query = query.where(Image.os_hidden.is_(False))
    order = _total_order(wanted)
    query = _after_marker(connection, caller, query, wanted, order)
    for item in order:
        column = SORT_KEYS[item.key]
        query = query.order_by(column.desc() if item.descending else column.asc())
    return connection.execute(query.limit(wanted.limit)).all() if wanted.limit else []


def _visibility_condition(caller: Caller, wanted: ImageListQuery) -> ColumnElement[bool]:
    """Match own, public and accepted shared images; other projects' community images require a visibility filter."""
    visibility = wanted.filters.get("visibility", [None])[-1]
    if visibility is not None and visibility not in (*Visibility, "all"):
        raise errors.BadRequest(f"Invalid visibility value: {visibility}")
    status = wanted.member_status or MemberStatus.ACCEPTED
    if status not in (*MemberStatus, "all"):
        raise errors.BadRequest(f"Invalid status: {status}")
    seen = visible_to(caller, None if status == "all" else MemberStatus(status))
    if visibility is None:
        return and_(seen, or_(Image.visibility != Visibility.COMMUNITY, Image.owner == caller.project))
    if visibility == "all":
        return seen
    chosen = and_(seen, Image.visibility == visibility)
    if visibility == Visibility.SHARED and wanted.member_status and not caller.is_admin:
        members = select(ImageMember.image_id).where(ImageMember.member == caller.project)
        if status != "all":
            members = members.where(ImageMember.status == status)
        return and_(chosen, or_(Image.id.in_(members), Image.owner == caller.project))
    return chosen


def _condition(dialect: str, name: str, value: str) -> ColumnElement[bool]:
    if name in ("protected", "os_hidden"):
        return getattr(Image, name).is_(_parse_boolean(name, value))  # type: ignore[no-any-return]
    if name in ("size_min", "size_max"):
        bound = _parse_number(name, value)
        size = and_(Image.size.is_not(None), Image.status.in_(STORED))
        return and_(size, Image.size >= bound if name == "size_min" else Image.size <= bound)
    if name in NUMBERS:
        return getattr(Image, name) == _parse_number(name, value)  # type: ignore[no-any-return]
    if name in TIMES:
        return _time_condition(name, value)
    if name == "tag":
        return _has_tag(dialect, value)
    if name in TEXTS:
        column = getattr(Image, name)
        if name in IN_FILTERS and value.startswith("in:"):
            return column.in_(split_values(value[3:]))  # type: ignore[no-any-return]
        return column == value  # type: ignore[no-any-return]
    return _has_property(dialect, name, value)


def _has_tag(dialect: str, tag: str) -> ColumnElement[bool]:
    if dialect == "postgresql":
        return cast(Image.tags, JSONB).contains([tag])
    each = func.json_each(Image.tags).table_valued("value")
    return select(literal(1)).select_from(each).where(each.c.value == tag).exists()


def _has_property(dialect: str, name: str, value: str) -> ColumnElement[bool]:
    if dialect == "postgresql":
        return cast(Image.properties, JSONB).contains({name: value})
    each = func.json_each(Image.properties).table_valued("key", "value")
    same = and_(each.c.key == name, cast(each.c.value, SqlString) == value)
    return select(literal(1)).select_from(each).where(same).exists()


def split_values(text: str) -> list[str]:
    """Split `a,"b,c",d` into three values. Raises BadRequest for unbalanced quotes."""
    values = re.findall(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^",]*))\s*(?:,|$)', text)
    if text.count('"') % 2 or re.search(r'[^,\s]\s*"[^",]*"|"[^",]*"\s*[^,\s]', text):
        raise errors.BadRequest(
            f"Invalid filter value {text}. The quote is not closed or there is no comma between values."
        )
    unquoted = [quoted.replace('\\"', '"') or plain.strip() for quoted, plain in values]
    return [value for value in unquoted if value]


def _time_condition(name: str, value: str) -> ColumnElement[bool]:
    column = getattr(Image, name)
    operator, _, text = value.partition(":")
    if operator not in COMPARISONS:
        operator, text = "eq", value
    try:
        time = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text.strip())
    except ValueError:
        raise errors.BadRequest(f"Invalid time value: {text}") from None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    second = time.replace(microsecond=999999)
    result: dict[str, ColumnElement[bool]] = {
        "gt": column > second,
        "gte": column >= time,
        "lt": column < time,
        "lte": column <= second,
        "eq": and_(column >= time, column <= second),
        "neq": or_(column < time, column > second),
    }
    return result[operator]


def _parse_number(name: str, value: str) -> int:
    operator, _, rest = value.partition(":")
    text = rest if operator == "eq" else value
    try:
        number = parse_integer(text)
    except ValueError:
        raise errors.BadRequest(f"Unable to filter on {name}: the value must be an integer, not {value!r}.") from None
    if number < 0:
        raise errors.BadRequest(f"Unable to filter on {name}: the value must not be negative.")
    return number


def _parse_boolean(name: str, value: str) -> bool:
    boolean = parse_boolean(value)
    if boolean is None:
        raise errors.BadRequest(f"Unable to filter on {name}: the value must be true or false, not {value!r}.")
    return boolean


def format_position(row: Row[Any], wanted: ImageListQuery) -> str:
    """Serialize the sort position of an image for `ImageListQuery.place` of the next page."""
    values: list[Any] = []
    for item in _total_order(wanted):
        value, kind = getattr(row, item.key), SORT_KEYS[item.key].type.python_type
        missing = "" if kind is str else -1  # the coalesce values of SORT_KEYS
        values.append(value.isoformat() if isinstance(value, datetime) else missing if value is None else value)
    return json.dumps(values)


def _total_order(wanted: ImageListQuery) -> list[Order]:
    """Extend the requested order by creation time and id to a total order."""
    order = list(wanted.order)
    if not any(item.key == "created_at" for item in order):
        order.append(Order("created_at", order[-1].descending if order else True))
    if not any(item.key == "id" for item in order):
        order.append(Order("id", order[-1].descending))
    return order


def _parse_position(place: str | None, order: Sequence[Order]) -> list[Any] | None:
    """Parse the output of `format_position`; None for other input."""
    try:
        values = json.loads(place or "")
        if not isinstance(values, list):
            return None
        return [_parse_sort_value(item.key, value) for item, value in zip(order, values, strict=True)]
    except (ValueError, TypeError, OverflowError):
        return None


def _parse_sort_value(key: str, value: Any) -> Any:
    """Convert a JSON value to the column's type. Raises ValueError, TypeError or OverflowError."""
    if key in TIMES:
        return datetime.fromisoformat(value).astimezone(UTC)
    kind = SORT_KEYS[key].type.python_type
    if type(value) is not kind or (kind is int and not -1 <= value < 1 << 63):
        raise ValueError(value)
    if kind is str and "\0" in value.encode().decode():  # encode() rejects lone surrogates
        raise ValueError(value)
    return value


def _after_marker(
    connection: Connection,
    caller: Caller,
    query: Select[*tuple[Any, ...]],
    wanted: ImageListQuery,
    order: Sequence[Order],
) -> Select[*tuple[Any, ...]]:
    """Restrict the query to rows after the marker (keyset pagination)."""
    if wanted.marker is None:
        return query
    keys = select(*(SORT_KEYS[item.key] for item in order))
    marker = connection.execute(keys.where(Image.id == wanted.marker, visible_to(caller, None))).one_or_none()
    row = _parse_position(wanted.place, order) if marker is None else marker
    if row is None:
        raise errors.BadRequest(f"Invalid marker: no image {wanted.marker}.")
    later: list[ColumnElement[bool]] = []
    same: list[ColumnElement[bool]] = []
    for item, value in zip(order, row, strict=True):
        column = SORT_KEYS[item.key]
        later.append(and_(*same, column < value if item.descending else column > value))
        same.append(column == value)
    return query.where(or_(*later))
