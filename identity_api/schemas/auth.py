"""The body of a log-in: proofs of who somebody is, and the scope that is asked for."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool, StringConstraints, model_validator

from app.core import errors
from app.web.bodies import Body
from identity_api.auth.methods import (
    ApplicationCredentialAuth,
    AuthMethod,
    CredentialReference,
    PasswordAuth,
    Reference,
    RequestedScope,
    TokenAuth,
)
from identity_api.auth.passwords import MAX_LENGTH
from identity_api.tokens.payload import Scope

Short = Annotated[str, StringConstraints(max_length=255)]
Secret = Annotated[str, StringConstraints(max_length=MAX_LENGTH)]
Token = Annotated[str, StringConstraints(max_length=8192)]


class LenientBody(Body):
    model_config = ConfigDict(extra="ignore")


class DomainReference(LenientBody):
    id: Short | None = None
    name: Short | None = None

    @model_validator(mode="after")
    def _named(self) -> "DomainReference":
        if self.id is None and self.name is None:
            raise ValueError("a domain is named by its id or its name")
        return self


class InDomain(LenientBody):
    """A user or project: by id, or by name and domain."""

    id: Short | None = None
    name: Short | None = None
    domain: DomainReference | None = None

    @model_validator(mode="after")
    def _named(self) -> "InDomain":
        if self.id is None and (self.name is None or self.domain is None):
            raise ValueError("it is named by its id, or by its name and its domain")
        return self

    def reference(self) -> Reference:
        domain = self.domain or DomainReference(id="")
        return Reference(id=self.id, name=self.name, domain_id=domain.id, domain_name=domain.name)


class PasswordUser(InDomain):
    password: Secret


class PasswordMethod(LenientBody):
    user: PasswordUser


class TokenMethod(LenientBody):
    id: Token


class ApplicationCredentialMethod(LenientBody):
    id: Short | None = None
    name: Short | None = None
    user: InDomain | None = None
    secret: Secret

    @model_validator(mode="after")
    def _named(self) -> "ApplicationCredentialMethod":
        if self.id is None and (self.name is None or self.user is None):
            raise ValueError("it is named by its id, or by its name and its user")
        return self


class Identity(LenientBody):
    methods: Annotated[list[str], Field(max_length=8)]
    password: PasswordMethod | None = None
    token: TokenMethod | None = None
    application_credential: ApplicationCredentialMethod | None = None


class SystemScope(LenientBody):
    all: StrictBool


class ScopeFields(LenientBody):
    project: InDomain | None = None
    domain: DomainReference | None = None
    system: SystemScope | None = None
    unscoped: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one(self) -> "ScopeFields":
        if len(self.model_fields_set & {"project", "domain", "system", "unscoped"}) != 1:
            raise ValueError("exactly one of project, domain, system and unscoped is wanted")
        return self


class Auth(LenientBody):
    identity: Identity
    scope: ScopeFields | Literal["unscoped"] | None = None

    def proofs(self) -> list[AuthMethod]:
        """What the client proves itself with. Raises BadRequest for a method without its part."""
        found: list[AuthMethod] = []
        for method in dict.fromkeys(self.identity.methods):
            if method == "password":
                user = _require_section(self.identity.password, method).user
                found.append(PasswordAuth(user=user.reference(), password=user.password))
            elif method == "token":
                found.append(TokenAuth(id=_require_section(self.identity.token, method).id))
            elif method == "application_credential":
                part = _require_section(self.identity.application_credential, method)
                user_of = part.user.reference() if part.user else None
                named = CredentialReference(part.id, part.name, user_of)
                found.append(ApplicationCredentialAuth(named=named, secret=part.secret))
            else:
                raise errors.Unauthorized("Attempted to authenticate with an unsupported method.")
        return found

    def wanted(self) -> RequestedScope | None:
        """The scope that is asked for; None when it is left to the server."""
        scope = self.scope
        if scope is None:
            return None
        if isinstance(scope, str) or scope.unscoped is not None:
            return RequestedScope(Scope.UNSCOPED)
        if scope.project is not None:
            return RequestedScope(Scope.PROJECT, scope.project.reference())
        if scope.domain is not None:
            return RequestedScope(Scope.DOMAIN, Reference(id=scope.domain.id, name=scope.domain.name))
        if scope.system is not None and scope.system.all:
            return RequestedScope(Scope.SYSTEM)
        raise errors.BadRequest("The only system scope there is is {'all': true}.")


class AuthRequest(LenientBody):
    auth: Auth


def _require_section(part: Any, method: str) -> Any:
    if part is None:
        raise errors.BadRequest(
            f"Expecting to find {method} in identity. The server could not comply with the request since it is either "
            "malformed or otherwise incorrect. The client is assumed to be in error."
        )
    return part
