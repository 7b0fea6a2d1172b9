"""The parts of identity that live as long as the process."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from flask import Flask, current_app
from sqlalchemy.orm import Session

from app.security.seal import Seal
from app.web.context import Parts, database
from identity_api.assignments import effective
from identity_api.auth.authentication import Logins
from identity_api.auth.passwords import Verifier
from identity_api.directory.catalog import CatalogEntry, entries
from identity_api.epoch_cache import Remembered
from identity_api.models import Project
from identity_api.tokens.tokens import Tokens

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class IdentityParts:
    """What identity's routes reach for, beside what all services share."""

    tokens: Tokens
    verifier: Verifier
    logins: Logins
    seal: Seal
    places: Remembered[tuple[str, str], Mapping[str, Any]]
    """What policy asks about objects that there are, by kind and id."""
    projects: Remembered[str, list[Project]]
    """The projects that a user has a role in."""
    decisions: dict[Hashable, bool]
    """What policy has answered: it depends on nothing but what is asked."""
    _catalog: Remembered[None, tuple[CatalogEntry, ...]]

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """The catalog's rows; read again when something in identity has changed."""
        return self._catalog.get(self.tokens.epoch, None, lambda: reading(entries))

    def projects_of(self, user_id: str) -> list[Project]:
        """The projects that the user has a role in; read again when something in identity has changed."""
        return self.projects.get(
            self.tokens.epoch, user_id, lambda: reading(lambda session: effective.projects_of(session, user_id))
        )


def install(app: Flask) -> None:
    """Make the parts for this application, which already has what all services share."""
    shared = cast(Parts, app.extensions["sixstack"])
    tokens = cast(Tokens, app.extensions["sixstack.tokens"])
    verifier = Verifier(admitted=shared.settings.worker_threads - 2)
    logins = Logins(shared.database, shared.clock, shared.settings, tokens, verifier)
    app.extensions["sixstack.identity"] = IdentityParts(
        tokens, verifier, logins, Seal(shared.settings), Remembered(), Remembered(), {}, Remembered()
    )


def reading(read: Callable[[Session], Found]) -> Found:
    """What `read` finds in the database."""
    with database().reading() as session:
        return read(session)


def identity() -> IdentityParts:
    return cast(IdentityParts, current_app.extensions["sixstack.identity"])
