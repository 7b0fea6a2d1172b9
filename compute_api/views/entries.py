"""Servers as JSON, kept from one request to the next, so that a list that is asked for every second costs a join.

What is kept of a server is good for one revision of it (`Server.revision`), which every change of its row, its ports
and its networks' names moves; so an entry is never older than the row it was found by. What else an entry depends on
(microversion, admin or not, base URL, the state of hosts) is its `Variant`.
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
    """Everything but the server that an entry depends on. `host_states` is empty where they are not shown."""

    version: Version
    admin: bool
    base_url: str
    single: bool
    host_states: tuple[tuple[str, str], ...] = ()


class EntryCache:
    """One process's entries, up to a number of bytes; when they are full, all are dropped and made again."""

    def __init__(self, maximum_bytes: int = 32 << 20) -> None:
        self._maximum = maximum_bytes
        self._size = 0
        self._kept: dict[Variant, dict[int, tuple[int, bytes]]] = {}

    def get(self, database: Database, caller: Caller, variant: Variant, keys: Sequence[ServerKey]) -> list[bytes]:
        """The servers of the keys as JSON, in their order; one that is gone meanwhile is left out."""
        kept = self._kept.setdefault(variant, {})
        found: list[bytes | None] = []
        missing: list[int] = []
        look = kept.get
        for seq, _server_id, revision in keys:
            entry = look(seq)
            if entry is not None and entry[0] == revision:
                found.append(entry[1])
            else:
                found.append(None)
                missing.append(seq)
        if not missing:
            return found  # type: ignore[return-value]
        with database.reading() as session:
            made = self._make(session, caller, variant, missing)
        self._keep(variant, made)
        whole = (
            one if one is not None else made.get(key[0], (0, None))[1] for key, one in zip(keys, found, strict=True)
        )
        return [one for one in whole if one is not None]

    def _make(
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

    def _keep(self, variant: Variant, made: dict[int, tuple[int, bytes]]) -> None:
        kept = self._kept.setdefault(variant, {})
        grown = sum(len(one[1]) for one in made.values())
        grown -= sum(len(old[1]) for seq in made if (old := kept.get(seq)) is not None)
        if self._size + grown > self._maximum:
            self._kept, self._size = {variant: made}, sum(len(one[1]) for one in made.values())
        else:
            kept.update(made)
            self._size += grown
