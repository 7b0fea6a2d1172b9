"""Absolute URLs in responses, based on the setting `public_url` or the request's Host header."""

from flask import request

from app.web.context import settings

CACHE_SIZE = 64
_cache: dict[tuple[str, str], str] = {}
"""Cache of base URLs by scheme and Host header: werkzeug's parsing takes as long as reading a server."""


def base_url() -> str:
    """Return the base URL of the five services, without a trailing slash."""
    configured = settings().public_url
    if configured:
        return configured.rstrip("/")
    environ = request.environ
    if not (host := environ.get("HTTP_HOST")):
        return request.host_url.rstrip("/")
    key = (environ["wsgi.url_scheme"], host)
    cached = _cache.get(key)
    if cached is None:
        if len(_cache) >= CACHE_SIZE:
            _cache.clear()
        cached = _cache[key] = request.host_url.rstrip("/")
    return cached


def url(path: str) -> str:
    """Return the absolute URL of a path such as /compute/v2.1/servers."""
    return base_url() + path
