"""Absolute URLs: from the setting `public_url`, or from the request's own Host."""

from flask import request

from app.web.context import settings

CACHE_SIZE = 64
_KNOWN: dict[tuple[str, str], str] = {}
"""What hosts that clients named became: working that out takes as long as reading a server."""


def base_url() -> str:
    """Where the five services live, without a slash at the end."""
    configured = settings().public_url
    if configured:
        return configured.rstrip("/")
    environ = request.environ
    if not (host := environ.get("HTTP_HOST")):
        return request.host_url.rstrip("/")
    asked = (environ["wsgi.url_scheme"], host)
    known = _KNOWN.get(asked)
    if known is None:
        if len(_KNOWN) >= CACHE_SIZE:
            _KNOWN.clear()
        known = _KNOWN[asked] = request.host_url.rstrip("/")
    return known


def url(path: str) -> str:
    """The absolute URL of a path such as /compute/v2.1/servers."""
    return base_url() + path
