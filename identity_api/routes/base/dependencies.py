"""The parts of identity that live as long as the process."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from flask import Flask, current_app
from sqlalchemy.orm import Session

from app.security.secret_cipher import SecretCipher
from app.web.context import Dependencies, database
from identity_api.assignments import effective
from identity_api.auth.authentication import LoginService
from identity_api.auth.passwords import Verifier
from identity_api.directory.catalog import CatalogEntry, load_catalog
from identity_api.epoch_cache import EpochCache
from identity_api.models import Project
from identity_api.tokens.tokens import Tokens

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class IdentityServices:
    """What identity's routes reach for, beside what all services share."""

    tokens: Tokens
    verifier: Verifier
    logins: LoginService
    cipher: SecretCipher
    places: EpochCache[tuple[str, str], Mapping[str, Any]]
    """What policy asks about objects that there are, by kind and id."""
    projects: EpochCache[str, list[Project]]
    """The projects that a user has a role in."""
    decisions: dict[Hashable, bool]
    """What policy has answered: it depends on nothing but what is asked."""
    _catalog: EpochCache[None, tuple[CatalogEntry, ...]]

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """The catalog's rows; read again when something in identity has changed."""
        return self._catalog.get(self.tokens.epoch, None, lambda: read_with_session(load_catalog))

    def projects_of(self, user_id: str) -> list[Project]:
        """The projects that the user has a role in; read again when something in identity has changed."""
        return self.projects.get(
            self.tokens.epoch,
            user_id,
            lambda: read_with_session(lambda session: effective.list_projects(session, user_id)),
        )


def install(app: Flask) -> None:
    """Make the parts for this application, which already has what all services share."""
    shared = cast(Dependencies, app.extensions["sixstack"])
    tokens = cast(Tokens, app.extensions["sixstack.tokens"])
    verifier = Verifier(admitted=shared.settings.worker_threads - 2)
    logins = LoginService(shared.database, shared.clock, shared.settings, tokens, verifier)
    app.extensions["sixstack.identity"] = IdentityServices(
        tokens, verifier, logins, SecretCipher(shared.settings), EpochCache(), EpochCache(), {}, EpochCache()
    )


def read_with_session(read: Callable[[Session], Found]) -> Found:
    """What `read` finds in the database."""
    with database().reading() as session:
        return read(session)


def identity() -> IdentityServices:
    return cast(IdentityServices, current_app.extensions["sixstack.identity"])
