"""Authentication: verifies the methods of a log-in request and issues a token for the requested scope."""

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
    """Result of the authentication methods verified so far."""

    user: User | None = None
    methods: Method = field(default_factory=lambda: Method(0))
    parent: Payload | None = None
    credential_id: str | None = None
    credential_project_id: str = ""
    presented_methods: set[str] = field(default_factory=set)

    def bind_user(self, user: User) -> None:
        """Require that all methods identify the same user in the same generation. Raises Unauthorized."""
        if self.user is not None and (self.user.id, self.user.generation) != (user.id, user.generation):
            raise errors.Unauthorized(UNAUTHORIZED)
        self.user = user


class LoginService:
    """Verifies authentication methods and issues tokens. One instance per API process."""

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

    def log_in(self, methods: list[AuthMethod], scope: RequestedScope | None, source: str) -> tuple[str, TokenContext]:
        """Issue a token. Without `scope`: the user's default project, or unscoped. `source` is the client's address.

        Raises Unauthorized without a reason, NotFound for a token that is no longer valid (as Keystone does), and
        TooManyRequests when too many log-ins are in progress.
        """
        epoch = self._tokens.epoch
        verified = _VerifiedMethods()
        for method in methods:
            if isinstance(method, PasswordAuth):
                self._verify_password(verified, method, source)
            elif isinstance(method, TokenAuth):
                self._verify_token(verified, method, epoch)
            else:
                self._verify_application_credential(verified, method, epoch)
        if verified.user is None:
            raise errors.Unauthorized(UNAUTHORIZED)
        _check_multi_factor_rules(verified.user.options, verified)
        return self._issue(verified, verified.user, scope, epoch)

    def check_password(self, reference: Reference, password: str, source: str) -> User:
        """Return the user if the password is correct, even if expired. `source` is the client's address, for lockouts.

        Raises Unauthorized.
        """
        with self._database.reading() as session:
            account = find_user(session, reference)
        exempt = account is not None and bool(account.options.get("ignore_lockout_failure_attempts"))
        subject = account.id if account else lockouts.unknown_user_subject(reference)
        attempt = self._lockouts.attempt(subject, source, exempt=exempt)
        matches = self._verifier.verify(account.password if account else None, password, subject, source, attempt.count)
        if account is None or not matches:
            shown = account.id if account else "that does not exist"
            reason = "locked out" if attempt.counted is False else "wrong password"
            log.warning("Failed log-in of user %s from %s: %s", shown, source or "an unknown address", reason)
            raise errors.Unauthorized(UNAUTHORIZED)
        attempt.clear()
        self._rehash_if_outdated(account, password)
        return account

    def _verify_password(self, verified: _VerifiedMethods, method: PasswordAuth, source: str) -> None:
        user = self.check_password(method.user, method.password, source)
        if not user.options.get("ignore_password_expiry") and self._has_expired(user.password_expires_at):
            raise errors.Unauthorized(f"The password is expired and needs to be changed for user: {user.id}.")
        verified.bind_user(user)
        verified.methods |= Method.PASSWORD
        verified.presented_methods.add("password")

    def _verify_token(self, verified: _VerifiedMethods, method: TokenAuth, epoch: int) -> None:
        parent = self._tokens.validate(method.id).payload
        user = self._load_user(parent.user_id, epoch)
        if user.generation != parent.generation:
            raise errors.NotFound("Failed to validate token")
        verified.bind_user(user)
        verified.methods |= Method.TOKEN | parent.methods
        verified.parent = parent
        if parent.application_credential_id is not None:
            verified.credential_id = parent.application_credential_id
            verified.credential_project_id = parent.scope_id

    def _verify_application_credential(
        self, verified: _VerifiedMethods, method: ApplicationCredentialAuth, epoch: int
    ) -> None:
        try:
            credential = self._credentials.get(
                epoch, method.credential, lambda: self._load_credential(method.credential)
            )
        except errors.Unauthorized:
            if method.credential.id is None:
                self._verifier.verify(
                    None, method.secret, ""
                )  # constant time: existing names must not be rejected faster
            raise
        if not self._verifier.verify(credential.digest, method.secret, credential.id) or self._has_expired(
            credential.expires_at
        ):
            if method.credential.id is None and credential.digest.startswith(passwords.GENERATED_PREFIX):
                self._verifier.verify(
                    None, method.secret, ""
                )  # constant time: as slow as for a name that does not exist
            raise errors.Unauthorized(UNAUTHORIZED)
        verified.bind_user(self._load_user(credential.user_id, epoch))
        verified.methods |= Method.APPLICATION_CREDENTIAL
        verified.presented_methods.add("application_credential")
        verified.credential_id = credential.id
        verified.credential_project_id = credential.project_id

    def _issue(
        self, verified: _VerifiedMethods, user: User, scope: RequestedScope | None, epoch: int
    ) -> tuple[str, TokenContext]:
        common: dict[str, Any] = {
            "user_id": user.id,
            "generation": user.generation,
            "methods": verified.methods,
            "parent": verified.parent,
            "application_credential_id": verified.credential_id,
        }
        if verified.credential_id is not None:
            if scope is not None:
                raise errors.Unauthorized(UNAUTHORIZED)
            return self._tokens.issue(**common, scope=Scope.PROJECT, scope_id=verified.credential_project_id)
        if scope is None:
            return self._issue_default(user, common)
        scope_id = self._scopes.get(epoch, scope, lambda: self._find_scope_id(scope))
        return self._tokens.issue(**common, scope=scope.kind, scope_id=scope_id)

    def _issue_default(self, user: User, common: Mapping[str, Any]) -> tuple[str, TokenContext]:
        if user.default_project_id is not None:
            try:
                return self._tokens.issue(**common, scope=Scope.PROJECT, scope_id=user.default_project_id)
            except errors.Unauthorized:
                pass  # deleted, disabled or no role: issue an unscoped token
        return self._tokens.issue(**common, scope=Scope.UNSCOPED)

    def _load_user(self, user_id: str, epoch: int) -> User:
        """Return the user as of this epoch. Failed log-ins do not change the epoch; lockout counters are not cached."""

        def read() -> User:
            with self._database.reading() as session:
                return require_found(session.get(User, user_id))

        return self._users.get(epoch, user_id, read)

    def _load_credential(self, credential: CredentialReference) -> ApplicationCredential:
        with self._database.reading() as session:
            return require_found(find_credential(session, credential))

    def _find_scope_id(self, scope: RequestedScope) -> str:
        with self._database.reading() as session:
            return auth_methods.find_scope_id(session, scope)

    def _has_expired(self, end: datetime | None) -> bool:
        return end is not None and end <= self._clock.now()

    def _rehash_if_outdated(self, user: User, password: str) -> None:
        """Store a new hash if the current one was made with different Argon2 parameters."""
        if not passwords.needs_rehash(user.password or ""):
            return
        renewed = self._verifier.hash(password)
        with self._database.transaction() as session:
            unchanged = (User.id == user.id) & (User.password == user.password)
            session.execute(update(User).where(unchanged).values(password=renewed))


def _check_multi_factor_rules(options: Mapping[str, Any], verified: _VerifiedMethods) -> None:
    """Enforce the user's multi-factor rules: the methods required together. Raises Unauthorized."""
    rules = options.get("multi_factor_auth_rules")
    if not options.get("multi_factor_auth_enabled") or not rules or verified.parent is not None:
        return
    if not any(set(rule) <= verified.presented_methods for rule in rules):
        raise errors.Unauthorized(UNAUTHORIZED)
