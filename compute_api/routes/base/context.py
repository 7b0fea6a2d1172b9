"""What compute's routes reach for beside what all routes do: transactions that notify, and questions to hosts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from flask import current_app, g
from sqlalchemy.orm import Session

from app.web.context import database
from app.web.microversion import Version
from compute_api.operations.completion import IMAGE_STORE
from compute_api.rpc.host_client import HostClient
from compute_api.views.entries import EntryCache

NOTIFY = "sixstack.notify"
ASK = "sixstack.ask"
ENTRIES = "sixstack.server_entries"


@contextmanager
def transaction() -> Iterator[Session]:
    """A write transaction after which the agents hear what was queued in it."""
    with database().transaction() as session:
        session.info["notify"] = current_app.extensions[NOTIFY]
        session.info[IMAGE_STORE] = current_app.extensions["sixstack.images.store"]
        yield session


def ask() -> HostClient:
    """The way to ask hosts."""
    return cast(HostClient, current_app.extensions[ASK])


def version() -> Version:
    """The microversion of this request."""
    return cast(Version, g.version)


def request_id() -> str:
    """The id of this request."""
    return cast(str, g.request_id)


def entries() -> EntryCache:
    """Servers as JSON that this process has made already."""
    return cast(EntryCache, current_app.extensions[ENTRIES])
