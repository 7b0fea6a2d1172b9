"""Token authentication: maps X-Auth-Token to the caller before every non-public route, and enforces access rules."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from flask import Flask, g, request

from app.core import errors, log_context, patterns
from app.core.caller import AccessRule, Caller
from app.web.services import CATALOG_TYPE, Service, service_of

Authenticator = Callable[[str], Caller]
"""Returns the caller of a token; raises Unauthorized."""

View = TypeVar("View", bound=Callable[..., Any])

SERVER_ID = re.compile("[0-9a-fA-F-]{1,36}")
"""Other values of `server_id` are not logged."""
VOLUME_ALIASES = ("volumev3", "volume")
"""Types of the volume service in the catalog besides `block-storage`; access rules may use any of them."""
REQUIRED = "The request you have made requires authentication."


def public(view: View) -> View:
    """Mark a view that needs no token: version documents and authentication."""
    view.public = True  # type: ignore[attr-defined]
    return view


def install(app: Flask, authenticate: Authenticator) -> None:
    """Require a valid token for every route not marked public."""

    def check() -> None:
        view = app.view_functions.get(request.endpoint or "")
        if view is None or getattr(view, "public", False):
            return
        token = request.environ.get("HTTP_X_AUTH_TOKEN")
        if not token:
            raise errors.Unauthorized(REQUIRED)
        caller = authenticate(token)
        context = log_context.current()
        context.project_id = caller.project_id or ""
        server_id = (request.view_args or {}).get("server_id", "")
        context.server_id = server_id if SERVER_ID.fullmatch(server_id) else ""
        if caller.access_rules is not None:
            _check_access_rules(caller.access_rules)
        g.caller = caller

    app.before_request(check)


def _check_access_rules(rules: tuple[AccessRule, ...]) -> None:
    service = service_of(request.path)
    path = request.path[len(service) + 1 :] if service else request.path
    service_type = CATALOG_TYPE[service] if service else ""
    service_types = {service_type, *VOLUME_ALIASES} if service is Service.VOLUME else {service_type}
    for rule in rules:
        if rule.service in service_types and rule.method == request.method and _path_matches(rule.path, path):
            return
    raise errors.Unauthorized(REQUIRED)


def _path_matches(rule_path: str, path: str) -> bool:
    """Whether the path pattern of an access rule matches. A pattern too large to compile matches nothing."""
    try:
        return patterns.compile_pattern(_path_regex(rule_path)).fullmatch(path) is not None
    except patterns.InvalidPattern:
        return False


@lru_cache(maxsize=1024)
def _path_regex(path: str) -> str:
    """Regex for a path pattern: `*` and {name} match one segment, `**` any number, as in keystonemiddleware."""
    parts = re.split(r"(\*\*|\*|\{[^}/]*\})", path)
    words = {"**": ".*", "*": "[^/]+"}
    return "".join("[^/]+" if part.startswith("{") else words.get(part) or patterns.escape(part) for part in parts)
