"""Log context: adds request, project and server ids to each log line.

It is stored in a context variable: new threads start without one.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields

FORMAT = "%(asctime)s %(levelname)s %(name)s [%(context)s] %(message)s"


@dataclass(slots=True, kw_only=True)
class LogContext:
    """Ids that log lines belong to; empty when unknown."""

    request_id: str = ""
    global_request_id: str = ""
    project_id: str = ""
    server_id: str = ""

    def __str__(self) -> str:
        """Format as `request_id=req-… project_id=…`, unknown ids left out; a dash when all are unknown."""
        known = ((field.name, getattr(self, field.name)) for field in fields(self))
        return " ".join(f"{name}={value}" for name, value in known if value) or "-"


_current: ContextVar[LogContext | None] = ContextVar("log_context", default=None)


def begin(context: LogContext) -> None:
    """Set the context of this thread until the next call."""
    _current.set(context)


def current() -> LogContext:
    """Return the context of this thread, which callers may modify; a detached one when none is set."""
    return _current.get() or LogContext()


@contextmanager
def use(context: LogContext) -> Iterator[None]:
    """Set the context for the duration of a block."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


class ContextFilter(logging.Filter):
    """Adds the context to each log record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.context = str(_current.get() or "-")
        return True


def configure() -> None:
    """Log to standard error with the context in each line. Does nothing when logging is already configured."""
    handler = logging.StreamHandler()
    handler.addFilter(ContextFilter())
    logging.basicConfig(level=logging.INFO, format=FORMAT, handlers=[handler])
