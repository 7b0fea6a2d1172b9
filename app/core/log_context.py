"""Log context: the request, project and server that a line of the log belongs to, in each line.

It is held in a context variable, so it follows a request through its thread; threads that are started begin without it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields

FORMAT = "%(asctime)s %(levelname)s %(name)s [%(context)s] %(message)s"


@dataclass(slots=True, kw_only=True)
class LogContext:
    """What a line belongs to; empty where it is not known."""

    request_id: str = ""
    global_request_id: str = ""
    project_id: str = ""
    server_id: str = ""

    def __str__(self) -> str:
        """Words to search for, such as `request_id=req-… project_id=…`; a dash when nothing is known."""
        known = ((field.name, getattr(self, field.name)) for field in fields(self))
        return " ".join(f"{name}={value}" for name, value in known if value) or "-"


_current: ContextVar[LogContext | None] = ContextVar("log_context", default=None)


def begin(context: LogContext) -> None:
    """Let lines of this thread belong to a request, until the next one begins."""
    _current.set(context)


def current() -> LogContext:
    """The context of this thread, which the caller may complete; an unattached one outside of requests."""
    return _current.get() or LogContext()


@contextmanager
def use(context: LogContext) -> Iterator[None]:
    """Let lines belong to this while a block runs."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


class ContextFilter(logging.Filter):
    """Adds the context to each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.context = str(_current.get() or "-")
        return True


def configure() -> None:
    """Log to standard error, with the context in each line. Does nothing where logging is configured."""
    handler = logging.StreamHandler()
    handler.addFilter(ContextFilter())
    logging.basicConfig(level=logging.INFO, format=FORMAT, handlers=[handler])
