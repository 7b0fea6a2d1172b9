"""Where consoles are served just now: a file in the state directory says the port, settings or the request the rest."""

from urllib.parse import urlsplit

from app.settings import Settings

FILE = "consoles.port"


def keep(settings: Settings, port: int) -> None:
    """From now on consoles are served there."""
    temporary = settings.state / f".{FILE}"
    temporary.write_text(f"{port}\n")
    temporary.rename(settings.state / FILE)


def forget(settings: Settings) -> None:
    """They are not."""
    (settings.state / FILE).unlink(missing_ok=True)


def port(settings: Settings) -> int | None:
    """Where the proxy of this state directory listens; None when it does not."""
    try:
        return int((settings.state / FILE).read_text())
    except (OSError, ValueError):
        return None


def base(settings: Settings, api: str) -> str | None:
    """What URLs of consoles start with, for who reaches the API at the URL `api`; None when none are served."""
    listening = port(settings)
    if listening is None:
        return None
    if settings.console_url:
        return settings.console_url.rstrip("/")
    host = urlsplit(api).hostname or "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{listening}"
