"""The routes of identity, below /identity."""

from flask import Flask

from identity_api.routes import (
    application_credentials,
    auth,
    catalog,
    domains,
    grants,
    groups,
    limits,
    parts,
    projects,
    role_assignments,
    roles,
    stored_credentials,
    users,
    versions,
)


def furnish(app: Flask) -> None:
    """Give the application what identity's routes reach for."""
    parts.install(app)


def register(app: Flask) -> None:
    """Add every route of identity to the application."""
    app.register_blueprint(versions.blueprint)
    for module in (
        auth,
        projects,
        domains,
        users,
        groups,
        roles,
        grants,
        role_assignments,
        application_credentials,
        stored_credentials,
        catalog,
        limits,
    ):
        app.register_blueprint(module.blueprint, url_prefix="/identity/v3")
