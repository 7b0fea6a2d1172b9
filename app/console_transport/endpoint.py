"""Where consoles are served just now: a file in the API's directory says the port, settings or the request the rest."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from app.core.settings import Settings

FILE = "consoles.port"


def write_port(settings: Settings, port: int) -> None:
    """From now on consoles are served there."""
    temporary = settings.api_directory / f".{FILE}"
    temporary.write_text(f"{port}\n")
    temporary.rename(settings.api_directory / FILE)


def remove_port(settings: Settings) -> None:
    """They are not."""
    (settings.api_directory / FILE).unlink(missing_ok=True)


def read_port(settings: Settings) -> int | None:
    """Where the proxy of this state directory listens; None when it does not."""
    try:
        return int((settings.api_directory / FILE).read_text())
    except (OSError, ValueError):
        return None


def host_facing_url(settings: Settings, port: int) -> str | None:
    """Where hosts on other computers reach the proxy that listens at `port` on this one: the URL that was chosen for
    them or for browsers, or the address that it listens at. None when that says nothing: it is where their API is."""
    if chosen := settings.console_host_url or settings.console_url:
        return chosen.rstrip("/")
    host = settings.console_address[0]
    try:
        found = ip_address(host)
    except ValueError:
        return None if host == "localhost" else f"http://{host}:{port}"
    return None if found.is_unspecified or found.is_loopback else f"http://{_bracketed(host)}:{port}"


def browser_url(settings: Settings, api: str) -> str | None:
    """What URLs of consoles start with, for who reaches the API at the URL `api`; None when none are served."""
    listening = read_port(settings)
    if listening is None:
        return None
    if settings.console_url:
        return settings.console_url.rstrip("/")
    host = urlsplit(api).hostname or "localhost"
    return f"http://{_bracketed(host)}:{listening}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
