"""Whose things a caller may see: everything for an admin, otherwise what a condition of the kind lets through."""

from typing import Any, TypeVar

from sqlalchemy import Select, String, bindparam
from sqlalchemy.sql import ColumnElement

from app.core.caller import Caller

AnySelect = TypeVar("AnySelect", bound=Select[Any])

CALLER_PROJECT = bindparam("caller_project", type_=String(64))
"""The caller's project in a condition; `asking` gives its value, so that one statement serves all callers."""


def restrict_to_visible(caller: Caller, query: AnySelect, condition: ColumnElement[bool]) -> AnySelect:
    """The query, kept to what the caller may see."""
    return query if caller.is_admin else query.where(condition)


def visibility_parameters(caller: Caller) -> dict[str, str]:
    """The parameters of a query that `seen_by` made."""
    return {"caller_project": caller.project}
