"""Visibility of rows: an admin sees all, other callers the rows that match a condition of the resource."""

from typing import Any, TypeVar

from sqlalchemy import Select, String, bindparam
from sqlalchemy.sql import ColumnElement

from app.core.caller import Caller

AnySelect = TypeVar("AnySelect", bound=Select[Any])

CALLER_PROJECT = bindparam("caller_project", type_=String(64))
"""Bind parameter for the caller's project, so that one compiled statement serves all callers."""


def restrict_to_visible(caller: Caller, query: AnySelect, condition: ColumnElement[bool]) -> AnySelect:
    """Add the condition to the query unless the caller is an admin."""
    return query if caller.is_admin else query.where(condition)


def visibility_parameters(caller: Caller) -> dict[str, str]:
    """Return the parameters of a query made by `restrict_to_visible`."""
    return {"caller_project": caller.project}
