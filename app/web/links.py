"""Absolute URLs: from the setting `public_url`, or from the request's own Host."""

from flask import request

from app.web.context import settings


def base_url() -> str:
    """Where the five services live, without a slash at the end."""
    configured = settings().public_url
    return configured.rstrip("/") if configured else request.host_url.rstrip("/")


def url(path: str) -> str:
    """The absolute URL of a path such as /compute/v2.1/servers."""
    return base_url() + path
