"""Policy enforcement with target attributes: a route names its rule and a function that loads the target."""

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
"""Maps path variables to target attributes; attributes of missing objects are omitted."""


def guard(rule: str, target: Target | None = None, *, domain_role: str | None = None) -> Callable[[View], View]:
    """Enforce a rule on the target: 403 unless it passes, also for a missing object.

    `domain_role` is the rule to apply instead if the target is a domain-specific role.
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
    """Raise Forbidden unless the caller passes the rule for the target."""
    path: Mapping[str, str] = request.view_args or {}
    attributes: dict[str, Any] = {**path, **(target(path) if target is not None else {})}
    if domain_role is not None and attributes.get("target.role.domain_id") is not None:
        rule = domain_role
    raise_unless(_decide_cached(rule, attributes), rule)


def _decide_cached(rule: str, attributes: Mapping[str, Any]) -> bool:
    """Evaluate the rule, with cached decisions."""
    me = caller()
    decisions = identity().decisions
    identity_key = (
        me.user_id,
        me.project_id,
        me.project_domain_id,
        me.domain_id,
        me.user_domain_id,
        me.system,
        me.roles,
    )
    key = (rule, identity_key, tuple(attributes.items()))
    try:
        decision = decisions.get(key)
    except TypeError:  # unhashable: the body may contain any JSON value for an id
        return is_allowed(rule, attributes)
    if decision is None:
        if len(decisions) >= MAX_ENTRIES:
            decisions.clear()
        decision = decisions[key] = is_allowed(rule, attributes)
    return decision


def raise_unless(passed: bool, rule: str) -> None:
    """Raise Forbidden with Keystone's message unless passed."""
    if not passed:
        raise errors.Forbidden(f"You are not authorized to perform the requested action: {rule}.")
