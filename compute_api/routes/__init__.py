"""The routes of compute, under /compute/v2.1; with a project id in the path too, as old clients have it."""

from flask import Flask

from app.web.context import Parts
from compute_api.ask import Asks, LocalAsk
from compute_api.dispatch.driver import remote
from compute_api.nudge import LocalNudge, Nudges
from compute_api.routes import (
    aggregates,
    blueprint,
    context,
    extensions,
    flavors,
    gone,
    hypervisors,
    images,
    keypairs,
    limits,
    os_hosts,
    proxies,
    quotas,
    refused,
    remote_consoles,
    server_actions,
    server_groups,
    server_machine,
    server_migrations,
    server_parts,
    server_password,
    servers,
    services,
    usage,
    versions,
    zones,
)
from compute_api.routes.project_in_path import without_project
from compute_api.views.entries import Entries

__all__ = [
    "aggregates",
    "extensions",
    "flavors",
    "gone",
    "hypervisors",
    "images",
    "keypairs",
    "limits",
    "os_hosts",
    "proxies",
    "quotas",
    "refused",
    "register",
    "remote_consoles",
    "server_actions",
    "server_groups",
    "server_machine",
    "server_migrations",
    "server_parts",
    "server_password",
    "servers",
    "services",
    "usage",
    "versions",
    "zones",
]


def furnish(app: Flask) -> None:
    """Give the application what compute's routes reach for."""
    parts: Parts = app.extensions["sixstack"]
    here = parts.settings.host_name if parts.settings.agent else None
    nudge, ask = remote(parts.settings)
    app.extensions[context.NUDGE] = Nudges(here, LocalNudge(parts.settings.state), nudge)
    app.extensions[context.ASK] = Asks(here, LocalAsk(parts.settings.state), ask)
    app.extensions[context.ENTRIES] = Entries()


def register(app: Flask) -> None:
    """Everything under /compute."""
    app.register_blueprint(versions.blueprint)
    app.register_blueprint(blueprint.compute)
    app.wsgi_app = without_project(app.wsgi_app)  # type: ignore[assignment,method-assign]
