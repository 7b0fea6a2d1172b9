"""The body of a log-in: proofs of who somebody is, and the scope that is asked for."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool, StringConstraints, model_validator

from app.core import errors
from app.web.bodies import Body
from identity_api.auth.methods import (
    CredentialName,
    CredentialProof,
    PasswordProof,
    Proof,
    Reference,
    TokenProof,
    WantedScope,
)
from identity_api.auth.passwords import MAXIMUM_LENGTH
from identity_api.tokens.payload import Scope

Short = Annotated[str, StringConstraints(max_length=255)]
Secret = Annotated[str, StringConstraints(max_length=MAXIMUM_LENGTH)]
Token = Annotated[str, StringConstraints(max_length=8192)]


class Open(Body):
    model_config = ConfigDict(extra="ignore")


class DomainReference(Open):
    id: Short | None = None
    name: Short | None = None

    @model_validator(mode="after")
    def _named(self) -> "DomainReference":
        if self.id is None and self.name is None:
            raise ValueError("a domain is named by its id or its name")
        return self


class InDomain(Open):
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


class PasswordMethod(Open):
    user: PasswordUser


class TokenMethod(Open):
    id: Token


class ApplicationCredentialMethod(Open):
    id: Short | None = None
    name: Short | None = None
    user: InDomain | None = None
    secret: Secret

    @model_validator(mode="after")
    def _named(self) -> "ApplicationCredentialMethod":
        if self.id is None and (self.name is None or self.user is None):
            raise ValueError("it is named by its id, or by its name and its user")
        return self


class Identity(Open):
    methods: Annotated[list[str], Field(max_length=8)]
    password: PasswordMethod | None = None
    token: TokenMethod | None = None
    application_credential: ApplicationCredentialMethod | None = None


class SystemScope(Open):
    all: StrictBool


class ScopeFields(Open):
    project: InDomain | None = None
    domain: DomainReference | None = None
    system: SystemScope | None = None
    unscoped: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one(self) -> "ScopeFields":
        if len(self.model_fields_set & {"project", "domain", "system", "unscoped"}) != 1:
            raise ValueError("exactly one of project, domain, system and unscoped is wanted")
        return self


class Auth(Open):
    identity: Identity
    scope: ScopeFields | Literal["unscoped"] | None = None

    def proofs(self) -> list[Proof]:
        """What the client proves itself with. Raises BadRequest for a method without its part."""
        found: list[Proof] = []
        for method in dict.fromkeys(self.identity.methods):
            if method == "password":
                user = _part(self.identity.password, method).user
                found.append(PasswordProof(user=user.reference(), password=user.password))
            elif method == "token":
                found.append(TokenProof(id=_part(self.identity.token, method).id))
            elif method == "application_credential":
                part = _part(self.identity.application_credential, method)
                user_of = part.user.reference() if part.user else None
                named = CredentialName(part.id, part.name, user_of)
                found.append(CredentialProof(named=named, secret=part.secret))
            else:
                raise errors.Unauthorized("Attempted to authenticate with an unsupported method.")
        return found

    def wanted(self) -> WantedScope | None:
        """The scope that is asked for; None when it is left to the server."""
        scope = self.scope
        if scope is None:
            return None
        if isinstance(scope, str) or scope.unscoped is not None:
            return WantedScope(Scope.UNSCOPED)
        if scope.project is not None:
            return WantedScope(Scope.PROJECT, scope.project.reference())
        if scope.domain is not None:
            return WantedScope(Scope.DOMAIN, Reference(id=scope.domain.id, name=scope.domain.name))
        if scope.system is not None and scope.system.all:
            return WantedScope(Scope.SYSTEM)
        raise errors.BadRequest("The only system scope there is is {'all': true}.")


class LogIn(Open):
    auth: Auth


def _part(part: Any, method: str) -> Any:
    if part is None:
        raise errors.BadRequest(
            f"Expecting to find {method} in identity. The server could not comply with the request since it is either "
            "malformed or otherwise incorrect. The client is assumed to be in error."
        )
    return part
