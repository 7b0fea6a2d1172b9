"""Conflict checks for writes: unique names, immutable resources, resource options."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.core import errors
from identity_api.models import Project, User

DUPLICATE_NAME = "Conflict occurred attempting to store {kind} - Duplicate entry found with name {name}."


def same_name(column: InstrumentedAttribute[str], name: Any) -> ColumnElement[bool]:
    """Compare names case-insensitively, as Keystone does with MySQL's default collation."""
    return func.lower(column) == func.lower(name)


def check_name_is_free(session: Session, kind: str, row: User | Project, name: str) -> None:
    """Raise Conflict if another user, project or domain in the same domain has this name, ignoring case.

    On PostgreSQL concurrent requests may both pass; the unique constraint then rejects exact duplicates only, and
    lookups prefer the exact match.
    """
    model = type(row)
    query = select(model.id).where(same_name(model.name, name), model.id != row.id)
    query = query.where(Project.is_domain if row.domain_id is None else model.domain_id == row.domain_id)
    if session.scalar(query.limit(1)) is not None:
        raise errors.Conflict(DUPLICATE_NAME.format(kind=kind, name=name))


@contextmanager
def conflict_on_duplicate(session: Session, kind: str, name: str) -> Iterator[None]:
    """Flush the changes made inside the context. Raises Conflict if a unique constraint is violated."""
    try:
        yield
        session.flush()
    except IntegrityError:
        raise errors.Conflict(DUPLICATE_NAME.format(kind=kind, name=name)) from None


def check_mutable(kind: str, id_: str, options: dict[str, Any], *, deleting: bool = False) -> None:
    """Raise Forbidden for a resource with the option `immutable`."""
    if options.get("immutable") is True:
        raise errors.Forbidden(
            f"Unable to {'delete' if deleting else 'update'} immutable {kind} resource: `{kind} {id_}`. "
            'Set resource option "immutable" to false first.'
        )


def merge_options(options: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge resource options; a null value removes an option."""
    return {name: value for name, value in {**options, **changes}.items() if value is not None}
