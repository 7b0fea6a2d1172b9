"""The routes of identity, below /identity."""

from flask import Flask

from identity_api.routes import auth, parts, versions


def register(app: Flask) -> None:
    """Add every route of identity to the application."""
    parts.install(app)
    app.register_blueprint(versions.blueprint)
    for module in (auth,):
        app.register_blueprint(module.blueprint, url_prefix="/identity/v3")
