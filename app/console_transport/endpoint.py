"""Endpoint of the console proxy: the port is in a file in the API's directory, the host in settings or the request."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from app.core.settings import Settings

FILE = "consoles.port"


def write_port(settings: Settings, port: int) -> None:
    """Record the port of the running proxy."""
    temporary = settings.api_directory / f".{FILE}"
    temporary.write_text(f"{port}\n")
    temporary.rename(settings.api_directory / FILE)


def remove_port(settings: Settings) -> None:
    """Remove the record: no proxy is running."""
    (settings.api_directory / FILE).unlink(missing_ok=True)


def read_port(settings: Settings) -> int | None:
    """Return the port of the running proxy of this state directory; None when there is none."""
    try:
        return int((settings.api_directory / FILE).read_text())
    except (OSError, ValueError):
        return None


def host_facing_url(settings: Settings, port: int) -> str | None:
    """Return the URL at which remote hosts reach the proxy: `console_host_url`, `console_url`, or its own address.

    None for a wildcard or loopback address: hosts then use the address of their API with `port`.
    """
    if chosen := settings.console_host_url or settings.console_url:
        return chosen.rstrip("/")
    host = settings.console_address[0]
    try:
        found = ip_address(host)
    except ValueError:
        return None if host == "localhost" else f"http://{host}:{port}"
    return None if found.is_unspecified or found.is_loopback else f"http://{_bracketed(host)}:{port}"


def browser_url(settings: Settings, api: str) -> str | None:
    """Return the base of console URLs for a client that uses the API at URL `api`; None when no proxy is running."""
    listening = read_port(settings)
    if listening is None:
        return None
    if settings.console_url:
        return settings.console_url.rstrip("/")
    host = urlsplit(api).hostname or "localhost"
    return f"http://{_bracketed(host)}:{listening}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
