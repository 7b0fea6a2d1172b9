"""Routes of the identity service below /identity."""

from flask import Flask

from identity_api.routes import catalog, limits, versions
from identity_api.routes.assignments import grants, role_assignments, roles
from identity_api.routes.auth import application_credentials, auth, credentials
from identity_api.routes.base import dependencies
from identity_api.routes.directory import domains, groups, projects, users


def configure(app: Flask) -> None:
    """Install the services that identity's routes use."""
    dependencies.install(app)


def register(app: Flask) -> None:
    """Register identity's blueprints."""
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
        credentials,
        catalog,
        limits,
    ):
        app.register_blueprint(module.blueprint, url_prefix="/identity/v3")
