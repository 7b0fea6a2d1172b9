"""Access of routes to the services of identity."""

from typing import cast

from flask import Flask, current_app

from app.security.secret_cipher import SecretCipher
from app.web.context import Dependencies
from identity_api.auth.authentication import LoginService
from identity_api.auth.passwords import Verifier
from identity_api.services import IdentityServices
from identity_api.tokens.tokens import Tokens


def install(app: Flask) -> None:
    """Create the services for this application; requires the shared ones of `app.web.context`."""
    shared = cast(Dependencies, app.extensions["sixstack"])
    tokens = cast(Tokens, app.extensions["sixstack.tokens"])
    verifier = Verifier(admitted=shared.settings.worker_threads - 2)
    logins = LoginService(shared.database, shared.clock, shared.settings, tokens, verifier)
    app.extensions["sixstack.identity"] = IdentityServices(
        shared.database, tokens, verifier, logins, SecretCipher(shared.settings)
    )


def identity() -> IdentityServices:
    """Return the services of the current application."""
    return cast(IdentityServices, current_app.extensions["sixstack.identity"])
