"""The parts of identity that live as long as the process."""

from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app

from app.web.context import Parts
from identity_api.catalog import CatalogEntry, entries
from identity_api.logins import Logins
from identity_api.passwords import Verifier
from identity_api.stored_credentials import Seal
from identity_api.tokens import Tokens


@dataclass(slots=True)
class IdentityParts:
    """What identity's routes reach for, beside what all services share."""

    tokens: Tokens
    verifier: Verifier
    logins: Logins
    seal: Seal
    _catalog: tuple[int, tuple[CatalogEntry, ...]] | None = None

    def catalog(self, shared: Parts) -> tuple[CatalogEntry, ...]:
        """The catalog's rows; read again when something in identity has changed."""
        at = self.tokens.epoch
        held = self._catalog
        if held is None or held[0] != at:
            with shared.database.reading() as session:
                held = self._catalog = (at, entries(session))
        return held[1]


def install(app: Flask) -> None:
    """Make the parts for this application, which already has what all services share."""
    shared = cast(Parts, app.extensions["sixstack"])
    tokens = cast(Tokens, app.extensions["sixstack.tokens"])
    verifier = Verifier(admitted=shared.settings.worker_threads - 2)
    logins = Logins(shared.database, shared.clock, shared.settings, tokens, verifier)
    app.extensions["sixstack.identity"] = IdentityParts(tokens, verifier, logins, Seal(shared.settings))


def identity() -> IdentityParts:
    return cast(IdentityParts, current_app.extensions["sixstack.identity"])
