"""Rejects requests with an unknown Host header when the names of the cloud are configured.

Prevents DNS rebinding, and links to another site: links follow the Host header when `public_url` is unset.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Flask, current_app, request

from app.core import errors
from app.core.settings import Settings

KNOWN_HOSTS = "sixstack.known_hosts"
LOCAL = ("localhost", "127.0.0.1", "::1")


class KnownHosts:
    """Accepted Host headers: names in `public_url` and `allowed_hosts`, the address of `listen`, and loopback.

    With `public_url` any IP address is accepted as well, since links do not follow the Host header then.
    """

    def __init__(self, settings: Settings) -> None:
        allowed = [name.strip() for name in settings.allowed_hosts.split(",") if name.strip()]
        self._any = not allowed and not settings.public_url
        self._addresses = bool(settings.public_url)
        public = urlsplit(settings.public_url or "").hostname or ""
        self._names = {_name(name) for name in (*allowed, public, settings.address[0], *LOCAL)}
        self._cache: set[str] = set()

    def __contains__(self, host: str) -> bool:
        if self._any or not host or host in self._cache:
            return True
        name = _name(host)
        if name not in self._names and not (self._addresses and _is_address(name)):
            return False
        if len(self._cache) < 64:
            self._cache.add(host)
        return True


def install(app: Flask) -> None:
    """Check the Host header before each request."""

    def check() -> None:
        if request.environ.get("HTTP_HOST", "") not in current_app.extensions[KNOWN_HOSTS]:
            raise errors.BadRequest("The Host header names no host of this cloud.")

    app.before_request(check)


def _name(host: str) -> str:
    """Return the host of HOST or HOST:PORT in lower case, without brackets and trailing dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    name, colon, port = host.rpartition(":")
    return (name if colon and ":" not in name and port.isdigit() else host).lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False
