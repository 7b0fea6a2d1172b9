"""Process-wide services of identity and their caches."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.db.database import Database
from app.security.secret_cipher import SecretCipher
from identity_api.assignments import effective
from identity_api.auth.authentication import LoginService
from identity_api.auth.passwords import Verifier
from identity_api.directory import policy_targets
from identity_api.directory.catalog import CatalogEntry, load_catalog
from identity_api.epoch_cache import EpochCache
from identity_api.models import Project
from identity_api.tokens.tokens import Tokens


@dataclass(frozen=True, slots=True)
class IdentityServices:
    """Services and caches used by identity's routes, in addition to `app.web.context`."""

    database: Database
    tokens: Tokens
    verifier: Verifier
    logins: LoginService
    cipher: SecretCipher
    decisions: dict[Hashable, bool] = field(default_factory=dict)
    """Policy decisions; they depend only on rule, caller and target attributes."""
    _targets: EpochCache[tuple[str, str], Mapping[str, Any]] = field(default_factory=EpochCache)
    _projects: EpochCache[str, list[Project]] = field(default_factory=EpochCache)
    _catalog: EpochCache[None, tuple[CatalogEntry, ...]] = field(default_factory=EpochCache)

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """Return the catalog, cached until the epoch changes."""

        def read() -> tuple[CatalogEntry, ...]:
            with self.database.reading() as session:
                return load_catalog(session)

        return self._catalog.get(self.tokens.epoch, None, read)

    def projects_of(self, user_id: str) -> list[Project]:
        """Return the projects on which the user has a role, cached until the epoch changes."""

        def read() -> list[Project]:
            with self.database.reading() as session:
                return effective.list_projects(session, user_id)

        return self._projects.get(self.tokens.epoch, user_id, read)

    def target(self, kind: str, id_: str) -> Mapping[str, Any]:
        """Return an object's target attributes for policy checks; empty if it does not exist."""
        with self.database.reading() as session:
            return policy_targets.load(session, kind, id_) or {}

    def cached_target(self, kind: str, id_: str) -> Mapping[str, Any]:
        """Return `target`, cached until the epoch changes. Absence is not cached: it ends without a change of epoch."""

        def read() -> Mapping[str, Any]:
            attributes = self.target(kind, id_)
            if not attributes:
                raise LookupError
            return attributes

        try:
            return self._targets.get(self.tokens.epoch, (kind, id_), read)
        except LookupError:
            return {}
