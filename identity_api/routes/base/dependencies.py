"""Process-wide services of identity and their caches."""

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
    """Services and caches used by identity's routes, in addition to `app.web.context`."""

    tokens: Tokens
    verifier: Verifier
    logins: LoginService
    cipher: SecretCipher
    targets: EpochCache[tuple[str, str], Mapping[str, Any]]
    """Target attributes of existing objects for policy checks, by model name and id."""
    projects: EpochCache[str, list[Project]]
    """Projects on which a user has a role, by user id."""
    decisions: dict[Hashable, bool]
    """Policy decisions; they depend only on rule, caller and target attributes."""
    _catalog: EpochCache[None, tuple[CatalogEntry, ...]]

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """Return the catalog, cached until the epoch changes."""
        return self._catalog.get(self.tokens.epoch, None, lambda: read_with_session(load_catalog))

    def projects_of(self, user_id: str) -> list[Project]:
        """Return the projects on which the user has a role, cached until the epoch changes."""
        return self.projects.get(
            self.tokens.epoch,
            user_id,
            lambda: read_with_session(lambda session: effective.list_projects(session, user_id)),
        )


def install(app: Flask) -> None:
    """Create the services for this application; requires the shared ones of `app.web.context`."""
    shared = cast(Dependencies, app.extensions["sixstack"])
    tokens = cast(Tokens, app.extensions["sixstack.tokens"])
    verifier = Verifier(admitted=shared.settings.worker_threads - 2)
    logins = LoginService(shared.database, shared.clock, shared.settings, tokens, verifier)
    app.extensions["sixstack.identity"] = IdentityServices(
        tokens, verifier, logins, SecretCipher(shared.settings), EpochCache(), EpochCache(), {}, EpochCache()
    )


def read_with_session(read: Callable[[Session], Found]) -> Found:
    """Run `read` in a read-only session."""
    with database().reading() as session:
        return read(session)


def identity() -> IdentityServices:
    return cast(IdentityServices, current_app.extensions["sixstack.identity"])
