"""Cache of rendered servers, so that a list that clients poll every second costs one query.

An entry is valid for one revision of a server (`Server.revision`), which changes with the row, its ports and the names
of its networks; an entry is therefore never older than the row that its key was read from. Everything else that an
entry depends on (microversion, admin rights, base URL, host states) is its `Variant`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import orjson
from sqlalchemy.orm import Session

from app.core.caller import Caller
from app.db.database import Database
from app.web.microversion import Version
from compute_api.servers import queries
from compute_api.servers.queries import ServerKey
from compute_api.views import servers as views
from network_api.resources import ports


class Variant(NamedTuple):
    """Everything but the server that an entry depends on. `host_states` is empty when the response omits them."""

    version: Version
    admin: bool
    base_url: str
    single: bool
    host_states: tuple[tuple[str, str], ...] = ()


class EntryCache:
    """Entries of one process, bounded in bytes; a full cache drops all entries."""

    def __init__(self, maximum_bytes: int = 32 << 20) -> None:
        self._maximum = maximum_bytes
        self._size = 0
        self._entries: dict[Variant, dict[int, tuple[int, bytes]]] = {}

    def get(self, database: Database, caller: Caller, variant: Variant, keys: Sequence[ServerKey]) -> list[bytes]:
        """Return the servers of the keys as JSON, in the same order, without servers that are deleted by now."""
        cached = self._entries.setdefault(variant, {})
        documents: list[bytes | None] = []
        missing: list[int] = []
        lookup = cached.get
        for seq, _server_id, revision in keys:
            entry = lookup(seq)
            if entry is not None and entry[0] == revision:
                documents.append(entry[1])
            else:
                documents.append(None)
                missing.append(seq)
        if not missing:
            return documents  # type: ignore[return-value]
        with database.reading() as session:
            rendered = self._render(session, caller, variant, missing)
        self._store(variant, rendered)
        complete = (
            document if document is not None else rendered.get(key[0], (0, None))[1]
            for key, document in zip(keys, documents, strict=True)
        )
        return [document for document in complete if document is not None]

    def _render(
        self, session: Session, caller: Caller, variant: Variant, missing: Sequence[int]
    ) -> dict[int, tuple[int, bytes]]:
        servers = queries.load_servers(session, missing)
        nics = ports.list_nics(session, [server.id for server in servers])
        states = dict(variant.host_states)
        show: Callable[..., dict[str, object]] = views.show
        return {
            server.seq: (
                server.revision,
                orjson.dumps(
                    show(
                        server,
                        nics.get(server.id, ()),
                        variant.version,
                        caller,
                        single=variant.single,
                        host_states=states,
                    )
                ),
            )
            for server in servers
        }

    def _store(self, variant: Variant, rendered: dict[int, tuple[int, bytes]]) -> None:
        cached = self._entries.setdefault(variant, {})
        size = sum(len(document) for _revision, document in rendered.values())
        growth = size - sum(len(old[1]) for seq in rendered if (old := cached.get(seq)) is not None)
        if self._size + growth > self._maximum:
            self._entries, self._size = {variant: rendered}, size
        else:
            cached.update(rendered)
            self._size += growth
