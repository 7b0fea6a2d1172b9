"""Refuses requests whose Host header names another site, once the operator has said which names this cloud has.

Hrefs follow the Host header where `public_url` is unset, and DNS rebinding makes browsers send an attacker's name.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Flask, current_app, request

from app.core import errors
from app.core.settings import Settings

KNOWN_HOSTS = "sixstack.known_hosts"
LOCAL = ("localhost", "127.0.0.1", "::1")


class KnownHosts:
    """Names that this cloud is reached by: those of `public_url`, `allowed_hosts`, `listen` and loopback.

    Any IP address is known as well where `public_url` is set: no href follows the Host header then.
    """

    def __init__(self, settings: Settings) -> None:
        listed = [name.strip() for name in settings.allowed_hosts.split(",") if name.strip()]
        self._any = not listed and not settings.public_url
        self._addresses = bool(settings.public_url)
        public = urlsplit(settings.public_url or "").hostname or ""
        self._names = {_name(name) for name in (*listed, public, settings.address[0], *LOCAL)}
        self._remembered: set[str] = set()

    def __contains__(self, host: str) -> bool:
        if self._any or not host or host in self._remembered:
            return True
        name = _name(host)
        if name not in self._names and not (self._addresses and _is_address(name)):
            return False
        if len(self._remembered) < 64:
            self._remembered.add(host)
        return True


def install(app: Flask) -> None:
    """Check the Host header before each request."""

    def check() -> None:
        if request.environ.get("HTTP_HOST", "") not in current_app.extensions[KNOWN_HOSTS]:
            raise errors.BadRequest("The Host header names no host of this cloud.")

    app.before_request(check)


def _name(host: str) -> str:
    """HOST of HOST or HOST:PORT, in lower case and without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    name, colon, port = host.rpartition(":")
    return (name if colon and ":" not in name and port.isdigit() else host).lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False
