"""Request context of compute routes: transactions that notify agents, the RPC client of hosts, microversion, caches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from flask import current_app, g
from sqlalchemy.orm import Session

from app.core import errors
from app.web.context import database
from app.web.microversion import Version
from compute_api.operations.completion import IMAGE_STORE
from compute_api.rpc.host_client import HostClient
from compute_api.views.entries import EntryCache

NOTIFY = "sixstack.notify"
HOST_CLIENT = "sixstack.host_client"
ENTRIES = "sixstack.server_entries"


@contextmanager
def transaction() -> Iterator[Session]:
    """Open a write transaction; after the commit, agents are notified of the operations that it queued."""
    with database().transaction() as session:
        session.info["notify"] = current_app.extensions[NOTIFY]
        session.info[IMAGE_STORE] = current_app.extensions["sixstack.images.store"]
        yield session


def host_client() -> HostClient:
    """Return the RPC client that calls the agents of hosts."""
    return cast(HostClient, current_app.extensions[HOST_CLIENT])


def version() -> Version:
    """Return the microversion of this request."""
    return cast(Version, g.version)


def request_id() -> str:
    """Return the id of this request."""
    return cast(str, g.request_id)


def entries() -> EntryCache:
    """Return this process's cache of rendered servers."""
    return cast(EntryCache, current_app.extensions[ENTRIES])


def check_available(*, since: Version | None = None, until: Version | None = None) -> None:
    """Raise NotFound when the request's microversion is outside of the bounds, which are inclusive."""
    if (since is not None and version() < since) or (until is not None and version() > until):
        raise errors.NotFound("The resource could not be found.")
