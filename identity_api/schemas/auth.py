"""Request body of a log-in: authentication methods and requested scope."""

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
    def _check_reference(self) -> "DomainReference":
        if self.id is None and self.name is None:
            raise ValueError("a domain needs an id or a name")
        return self


class InDomain(LenientBody):
    """Reference to a user or project: by id, or by name and domain."""

    id: Short | None = None
    name: Short | None = None
    domain: DomainReference | None = None

    @model_validator(mode="after")
    def _check_reference(self) -> "InDomain":
        if self.id is None and (self.name is None or self.domain is None):
            raise ValueError("it needs an id, or a name and a domain")
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
    def _check_reference(self) -> "ApplicationCredentialMethod":
        if self.id is None and (self.name is None or self.user is None):
            raise ValueError("it needs an id, or a name and a user")
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
    def _check_exactly_one(self) -> "ScopeFields":
        if len(self.model_fields_set & {"project", "domain", "system", "unscoped"}) != 1:
            raise ValueError("exactly one of project, domain, system and unscoped is required")
        return self


class Auth(LenientBody):
    identity: Identity
    scope: ScopeFields | Literal["unscoped"] | None = None

    def auth_methods(self) -> list[AuthMethod]:
        """Return the methods. Raises BadRequest for a method without section, Unauthorized if unsupported."""
        methods: list[AuthMethod] = []
        for method in dict.fromkeys(self.identity.methods):
            if method == "password":
                user = _require_section(self.identity.password, method).user
                methods.append(PasswordAuth(user=user.reference(), password=user.password))
            elif method == "token":
                methods.append(TokenAuth(id=_require_section(self.identity.token, method).id))
            elif method == "application_credential":
                section = _require_section(self.identity.application_credential, method)
                user_reference = section.user.reference() if section.user else None
                reference = CredentialReference(section.id, section.name, user_reference)
                methods.append(ApplicationCredentialAuth(credential=reference, secret=section.secret))
            else:
                raise errors.Unauthorized("Attempted to authenticate with an unsupported method.")
        return methods

    def requested_scope(self) -> RequestedScope | None:
        """Return the requested scope; None for the server's default."""
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
        raise errors.BadRequest("The only supported system scope is {'all': true}.")


class AuthRequest(LenientBody):
    auth: Auth


def _require_section(section: Any, method: str) -> Any:
    if section is None:
        raise errors.BadRequest(
            f"Expecting to find {method} in identity. The server could not comply with the request since it is either "
            "malformed or otherwise incorrect. The client is assumed to be in error."
        )
    return section
