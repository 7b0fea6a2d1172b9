"""Policy for objects of identity: a route names its rule and how to find the object that the rule speaks of."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from flask import request

from app.core import errors
from app.web.context import caller
from app.web.policy import is_allowed
from identity_api.epoch_cache import MAX_ENTRIES
from identity_api.routes.base.dependencies import identity

View = TypeVar("View", bound=Callable[..., Any])
Target = Callable[[Mapping[str, str]], Mapping[str, Any]]
"""From the variables of the path to what rules may ask about; without the keys of what does not exist."""


def guard(rule: str, target: Target | None = None, *, domain_role: str | None = None) -> Callable[[View], View]:
    """Let only those in who pass the rule for the object; 403 for others, also where there is no such object.

    `domain_role` is the rule to apply instead where the object is a role of one domain.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(*args: Any, **kwargs: Any) -> Any:
            enforce(rule, target, domain_role=domain_role)
            return view(*args, **kwargs)

        checked.rule = rule  # type: ignore[attr-defined]
        return cast(View, checked)

    return decorate


def enforce(rule: str, target: Target | None = None, *, domain_role: str | None = None) -> None:
    """Raise Forbidden unless the caller passes the rule."""
    path: Mapping[str, str] = request.view_args or {}
    found: dict[str, Any] = {**path, **(target(path) if target is not None else {})}
    if domain_role is not None and found.get("target.role.domain_id") is not None:
        rule = domain_role
    raise_unless(_decide_cached(rule, found), rule)


def _decide_cached(rule: str, found: Mapping[str, Any]) -> bool:
    """What policy says, once for each question."""
    me = caller()
    decisions = identity().decisions
    who = (me.user_id, me.project_id, me.project_domain_id, me.domain_id, me.user_domain_id, me.system, me.roles)
    question = (rule, who, tuple(found.items()))
    try:
        known = decisions.get(question)
    except TypeError:  # a body may hold anything where an id is wanted
        return is_allowed(rule, found)
    if known is None:
        if len(decisions) >= MAX_ENTRIES:
            decisions.clear()
        known = decisions[question] = is_allowed(rule, found)
    return known


def raise_unless(passed: bool, rule: str) -> None:
    """Raise Forbidden in Keystone's words."""
    if not passed:
        raise errors.Forbidden(f"You are not authorized to perform the requested action: {rule}.")
