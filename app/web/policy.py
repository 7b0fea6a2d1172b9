"""Policy enforcement: OpenStack's rule names with the defaults of 2023 and later, in oslo.policy syntax.

A route names its rule with `@require`; code that accesses objects of other projects or users calls `is_allowed` or
`enforce` with a target. Operators override rules in `policy.yaml` in the state directory.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from flask import current_app, g
from oslo_policy.policy import Rules

from app.core import errors
from app.core.caller import Caller

View = TypeVar("View", bound=Callable[..., Any])

CACHE_SIZE = 4096
"""Number of cached decisions; the cache is cleared when full."""

ADMIN = "role:admin"
READER = "role:reader and project_id:%(project_id)s"
MEMBER = "role:member and project_id:%(project_id)s"
MANAGER = "role:manager and project_id:%(project_id)s"
READER_OR_ADMIN = f"({ADMIN}) or ({READER})"
MEMBER_OR_ADMIN = f"({ADMIN}) or ({MEMBER})"
MANAGER_OR_ADMIN = f"({ADMIN}) or ({MANAGER})"
OWNER_OR_ADMIN = f"({ADMIN}) or user_id:%(user_id)s"
SERVICE_OR_ADMIN = f"({ADMIN}) or role:service"
RULE_ANY = "@"

PROJECT_OPTIONAL = ("identity:",)
"""Prefixes of rules that tokens without a project may pass. The other services reject such tokens, as Nova, Neutron,
Glance and Cinder do (oslo.policy's scope types), except from admins."""


class Policy:
    """Rules of all services. Raises ValueError for an override of an unknown rule."""

    def __init__(self, defaults: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> None:
        unknown = sorted(set(overrides or {}) - set(defaults))
        if unknown:
            raise ValueError(f"policy.yaml contains unknown rules: {', '.join(unknown)}")
        self.texts = {**defaults, **(overrides or {})}
        self.rules = Rules.from_dict(self.texts)
        self._decisions: dict[tuple[Any, ...], bool] = {}

    def allows(self, rule: str, target: Mapping[str, Any], caller: Caller) -> bool:
        """Whether the caller passes the rule for the target. A check of a missing attribute fails."""
        if not caller.project_id and not caller.is_admin and not rule.startswith(PROJECT_OPTIONAL):
            return False
        check = self.rules[rule]
        return bool(check(target, _credentials(caller), cast(Any, self), rule))

    def allows_self(self, rule: str, caller: Caller) -> bool:
        """Whether the caller passes the rule for its own project, user and domain. Cached."""
        key = (rule, caller.user_id, caller.project_id, caller.domain_id, caller.system, caller.roles)
        decision = self._decisions.get(key)
        if decision is None:
            if len(self._decisions) >= CACHE_SIZE:
                self._decisions.clear()
            own = {"project_id": caller.project_id, "user_id": caller.user_id, "domain_id": caller.domain_id}
            target = {name: value for name, value in own.items() if value is not None}
            decision = self._decisions[key] = self.allows(rule, target, caller)
        return decision


def _credentials(caller: Caller) -> dict[str, Any]:
    """Credentials for checks. A token without a project has no project keys: None would equal None of a target."""
    project = {"project_id": caller.project_id, "project_domain_id": caller.project_domain_id}
    return {
        **(project if caller.project_id else {}),
        "user_id": caller.user_id,
        "domain_id": caller.domain_id,
        "user_domain_id": caller.user_domain_id,
        "system_scope": "all" if caller.system else None,
        "system": "all" if caller.system else None,
        "roles": list(caller.roles),
        "is_admin": caller.is_admin,
    }


def require(rule: str) -> Callable[[View], View]:
    """Require that the caller passes the rule for its own project and user; 403 otherwise."""

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(*args: Any, **kwargs: Any) -> Any:
            enforce(rule)
            return view(*args, **kwargs)

        checked.rule = rule  # type: ignore[attr-defined]
        return cast(View, checked)

    return decorate


def is_allowed(rule: str, target: Mapping[str, Any] | None = None) -> bool:
    """Whether the caller of this request passes the rule; without a target for its own project and user."""
    caller: Caller = g.caller
    policy: Policy = current_app.extensions["sixstack.policy"]
    return policy.allows_self(rule, caller) if target is None else policy.allows(rule, target, caller)


def enforce(rule: str, target: Mapping[str, Any] | None = None) -> None:
    """Raise Forbidden unless the caller passes the rule."""
    if not is_allowed(rule, target):
        raise errors.Forbidden(f"Policy doesn't allow {rule} to be performed.")
