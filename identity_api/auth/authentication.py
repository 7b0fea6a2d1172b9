"""Logging in: who somebody proves to be, and what they then ask to be good for."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import update

from app.core import errors
from app.core.clock import Clock
from app.core.settings import Settings
from app.db.database import Database
from identity_api.auth import lockouts, passwords
from identity_api.auth import methods as auth_methods
from identity_api.auth.lockouts import Lockouts
from identity_api.auth.methods import (
    ApplicationCredentialAuth,
    AuthMethod,
    CredentialReference,
    PasswordAuth,
    Reference,
    RequestedScope,
    TokenAuth,
    find_credential,
    find_user,
    require_found,
)
from identity_api.auth.passwords import Verifier
from identity_api.epoch_cache import EpochCache
from identity_api.models import ApplicationCredential, User
from identity_api.tokens.context import UNAUTHORIZED, TokenContext
from identity_api.tokens.payload import Method, Payload, Scope
from identity_api.tokens.tokens import Tokens

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _VerifiedMethods:
    """What the proofs have shown so far."""

    user: User | None = None
    methods: Method = field(default_factory=lambda: Method(0))
    parent: Payload | None = None
    credential_id: str | None = None
    credential_project_id: str = ""
    own_methods: set[str] = field(default_factory=set)

    def is_user(self, user: User) -> None:
        """All proofs must be of one user, and none of them older than a change of the password."""
        if self.user is not None and (self.user.id, self.user.generation) != (user.id, user.generation):
            raise errors.Unauthorized(UNAUTHORIZED)
        self.user = user


class LoginService:
    """Turns proofs into tokens. One for each API process."""

    def __init__(
        self, database: Database, clock: Clock, settings: Settings, tokens: Tokens, verifier: Verifier
    ) -> None:
        self._database = database
        self._clock = clock
        self._lockouts = Lockouts(database, clock, settings)
        self._tokens = tokens
        self._verifier = verifier
        self._users: EpochCache[str, User] = EpochCache()
        self._credentials: EpochCache[CredentialReference, ApplicationCredential] = EpochCache()
        self._scopes: EpochCache[RequestedScope, str] = EpochCache()

    def log_in(self, proofs: list[AuthMethod], wanted: RequestedScope | None, source: str) -> tuple[str, TokenContext]:
        """The new token. `wanted` None: the user's default project, or unscoped. `source` is the client's address.

        Raises Unauthorized without saying what was wrong, NotFound for a token that is not good any more, as Keystone
        does, and TooManyRequests in a flood.
        """
        epoch = self._tokens.epoch
        proven = _VerifiedMethods()
        for proof in proofs:
            if isinstance(proof, PasswordAuth):
                self._by_password(proven, proof, source)
            elif isinstance(proof, TokenAuth):
                self._by_token(proven, proof, epoch)
            else:
                self._by_credential(proven, proof, epoch)
        if proven.user is None:
            raise errors.Unauthorized(UNAUTHORIZED)
        _check_multi_factor_rules(proven.user.options, proven)
        return self._issue(proven, proven.user, wanted, epoch)

    def check_password(self, user: Reference, password: str, source: str) -> User:
        """The user whose password this is, expired or not. `source` is the client's address; see lockouts.py.

        Raises Unauthorized.
        """
        with self._database.reading() as session:
            found = find_user(session, user)
        exempt = found is not None and bool(found.options.get("ignore_lockout_failure_attempts"))
        subject = found.id if found else lockouts.unknown_user_subject(user)
        attempt = self._lockouts.attempt(subject, source, exempt=exempt)
        fits = self._verifier.verify(found.password if found else None, password, subject, source, attempt.take)
        if found is None or not fits:
            shown = found.id if found else "that does not exist"
            reason = "locked out" if attempt.taken is False else "wrong password"
            log.warning("Failed log-in of user %s from %s: %s", shown, source or "an unknown address", reason)
            raise errors.Unauthorized(UNAUTHORIZED)
        attempt.clear()
        self._renew_hash(found, password)
        return found

    def _by_password(self, proven: _VerifiedMethods, proof: PasswordAuth, source: str) -> None:
        user = self.check_password(proof.user, proof.password, source)
        if not user.options.get("ignore_password_expiry") and self._is_over(user.password_expires_at):
            raise errors.Unauthorized(f"The password is expired and needs to be changed for user: {user.id}.")
        proven.is_user(user)
        proven.methods |= Method.PASSWORD
        proven.own_methods.add("password")

    def _by_token(self, proven: _VerifiedMethods, proof: TokenAuth, epoch: int) -> None:
        parent = self._tokens.validate(proof.id).payload
        user = self._user(parent.user_id, epoch)
        if user.generation != parent.generation:
            raise errors.NotFound("Failed to validate token")
        proven.is_user(user)
        proven.methods |= Method.TOKEN | parent.methods
        proven.parent = parent
        if parent.application_credential_id is not None:
            proven.credential_id = parent.application_credential_id
            proven.credential_project_id = parent.scope_id

    def _by_credential(self, proven: _VerifiedMethods, proof: ApplicationCredentialAuth, epoch: int) -> None:
        try:
            found = self._credentials.get(epoch, proof.named, lambda: self._credential(proof.named))
        except errors.Unauthorized:
            if proof.named.id is None:
                self._verifier.verify(None, proof.secret, "")  # a name that exists must not be quicker to refuse
            raise
        if not self._verifier.verify(found.digest, proof.secret, found.id) or self._is_over(found.expires_at):
            if proof.named.id is None and found.digest.startswith(passwords.GENERATED_PREFIX):
                self._verifier.verify(None, proof.secret, "")  # as slow as for a name that does not exist
            raise errors.Unauthorized(UNAUTHORIZED)
        proven.is_user(self._user(found.user_id, epoch))
        proven.methods |= Method.APPLICATION_CREDENTIAL
        proven.own_methods.add("application_credential")
        proven.credential_id = found.id
        proven.credential_project_id = found.project_id

    def _issue(
        self, proven: _VerifiedMethods, user: User, wanted: RequestedScope | None, epoch: int
    ) -> tuple[str, TokenContext]:
        common: dict[str, Any] = {
            "user_id": user.id,
            "generation": user.generation,
            "methods": proven.methods,
            "parent": proven.parent,
            "application_credential_id": proven.credential_id,
        }
        if proven.credential_id is not None:
            if wanted is not None:
                raise errors.Unauthorized(UNAUTHORIZED)
            return self._tokens.issue(**common, scope=Scope.PROJECT, scope_id=proven.credential_project_id)
        if wanted is None:
            return self._issue_default(user, common)
        scope_id = self._scopes.get(epoch, wanted, lambda: self._scope_id(wanted))
        return self._tokens.issue(**common, scope=wanted.kind, scope_id=scope_id)

    def _issue_default(self, user: User, common: Mapping[str, Any]) -> tuple[str, TokenContext]:
        if user.default_project_id is not None:
            try:
                return self._tokens.issue(**common, scope=Scope.PROJECT, scope_id=user.default_project_id)
            except errors.Unauthorized:
                pass  # gone, disabled, or no role there any more: then for nothing in particular
        return self._tokens.issue(**common, scope=Scope.UNSCOPED)

    def _user(self, user_id: str, epoch: int) -> User:
        """The user as of this epoch. Failed log-ins do not move it: what counts them is not read from here."""

        def read() -> User:
            with self._database.reading() as session:
                return require_found(session.get(User, user_id))

        return self._users.get(epoch, user_id, read)

    def _credential(self, named: CredentialReference) -> ApplicationCredential:
        with self._database.reading() as session:
            return require_found(find_credential(session, named))

    def _scope_id(self, wanted: RequestedScope) -> str:
        with self._database.reading() as session:
            return auth_methods.find_scope_id(session, wanted)

    def _is_over(self, end: datetime | None) -> bool:
        return end is not None and end <= self._clock.now()

    def _renew_hash(self, user: User, password: str) -> None:
        """Hash the password again when its hash was made with other parameters than those of today."""
        if not passwords.needs_rehash(user.password or ""):
            return
        renewed = self._verifier.hash(password)
        with self._database.transaction() as session:
            unchanged = (User.id == user.id) & (User.password == user.password)
            session.execute(update(User).where(unchanged).values(password=renewed))


def _check_multi_factor_rules(options: Mapping[str, Any], proven: _VerifiedMethods) -> None:
    """The user's own rules about which methods are needed together."""
    rules = options.get("multi_factor_auth_rules")
    if not options.get("multi_factor_auth_enabled") or not rules or proven.parent is not None:
        return
    if not any(set(rule) <= proven.own_methods for rule in rules):
        raise errors.Unauthorized(UNAUTHORIZED)
