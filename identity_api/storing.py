"""Writing rows whose names must not be taken."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import errors


@contextmanager
def stored(session: Session, kind: str, name: str) -> Iterator[None]:
    """Write what is changed inside to the database. Raises Conflict when its name is taken."""
    try:
        yield
        session.flush()
    except IntegrityError:
        raise errors.Conflict(
            f"Conflict occurred attempting to store {kind} - Duplicate entry found with name {name}."
        ) from None


def check_mutable(kind: str, id_: str, options: dict[str, Any], *, deleting: bool = False) -> None:
    """Raise Forbidden for what its options protect."""
    if options.get("immutable") is True:
        raise errors.Forbidden(
            f"Unable to {'delete' if deleting else 'update'} immutable {kind} resource: `{kind} {id_}`. "
            'Set resource option "immutable" to false first.'
        )


def merged(options: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The options after a change: null removes one."""
    return {name: value for name, value in {**options, **changes}.items() if value is not None}
