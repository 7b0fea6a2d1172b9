"""Who may do what: OpenStack's rule names, with the defaults of 2023 and later, in oslo.policy's language.

A route names its rule with `@require`; the domain asks `allowed` or `enforce` where an object of somebody else's is
concerned. Operators override rules in `policy.yaml` in the state directory, as for any OpenStack service.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from flask import current_app, g
from oslo_policy import _parser
from oslo_policy.policy import Rules

from app.core import errors
from app.core.caller import Caller

View = TypeVar("View", bound=Callable[..., Any])

CACHE_SIZE = 4096
"""How many decisions are kept before starting over."""

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
"""Prefixes of the rules that tokens without a project may pass. The other services have no use for such a token and
refuse it, as Nova, Neutron, Glance and Cinder do (oslo.policy's scope types), except from admins."""


class Policy:
    """All rules of all services. Raises ValueError for a rule in operators' overrides that nobody knows."""

    def __init__(self, defaults: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> None:
        unknown = sorted(set(overrides or {}) - set(defaults))
        if unknown:
            raise ValueError(f"policy.yaml names rules that do not exist: {', '.join(unknown)}")
        self.texts = {**defaults, **(overrides or {})}
        self.rules = Rules({name: _parser.parse_rule(text) for name, text in self.texts.items()})
        self._own: dict[tuple[Any, ...], bool] = {}

    def allows(self, rule: str, target: Mapping[str, Any], caller: Caller) -> bool:
        """Whether the caller passes the rule for the target. A key missing on either side fails its check."""
        if not caller.project_id and not caller.is_admin and not rule.startswith(PROJECT_OPTIONAL):
            return False
        check = self.rules[rule]
        return bool(check(target, _credentials(caller), cast(Any, self), rule))

    def allows_own(self, rule: str, caller: Caller) -> bool:
        """Whether the caller passes the rule for what is their own. Remembered: it is asked once or more a request."""
        key = (rule, caller.user_id, caller.project_id, caller.domain_id, caller.system, caller.roles)
        known = self._own.get(key)
        if known is None:
            if len(self._own) >= CACHE_SIZE:
                self._own.clear()
            own = {"project_id": caller.project_id, "user_id": caller.user_id, "domain_id": caller.domain_id}
            target = {name: value for name, value in own.items() if value is not None}
            known = self._own[key] = self.allows(rule, target, caller)
        return known


def _credentials(caller: Caller) -> dict[str, Any]:
    """What checks may name. A token without a project has no project keys: None would equal an object's None."""
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
    """The rule that the caller must pass, applied to the caller's own project and user. 403 otherwise."""

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(*args: Any, **kwargs: Any) -> Any:
            enforce(rule)
            return view(*args, **kwargs)

        checked.rule = rule  # type: ignore[attr-defined]
        return cast(View, checked)

    return decorate


def is_allowed(rule: str, target: Mapping[str, Any] | None = None) -> bool:
    """Whether the caller of this request passes the rule; without a target, for the caller's own project and user."""
    caller: Caller = g.caller
    policy: Policy = current_app.extensions["sixstack.policy"]
    return policy.allows_own(rule, caller) if target is None else policy.allows(rule, target, caller)


def enforce(rule: str, target: Mapping[str, Any] | None = None) -> None:
    """Raise Forbidden unless `allowed`."""
    if not is_allowed(rule, target):
        raise errors.Forbidden(f"Policy doesn't allow {rule} to be performed.")
