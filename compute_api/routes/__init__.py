"""Routes of the compute API below /compute/v2.1."""

from collections.abc import Iterable

from flask import Flask, current_app
from sqlalchemy.orm import Session

from app.web.context import Dependencies, clock
from compute_api.operations import interfaces
from compute_api.routes import (
    extensions,
    flavors,
    images,
    keypairs,
    limits,
    network_proxies,
    quotas,
    removed_apis,
    usage,
    versions,
)
from compute_api.routes.base import blueprint, context, unsupported
from compute_api.routes.base.project_in_path import strip_project
from compute_api.routes.hosts import aggregates, hypervisors, os_hosts, services, zones
from compute_api.routes.servers import (
    actions,
    consoles,
    diagnostics,
    groups,
    migrations,
    password,
    servers,
    subresources,
)
from compute_api.rpc.driver import make_remote_clients
from compute_api.rpc.host_client import HostClient, LocalHostClient
from compute_api.rpc.notify import LocalNotifier, Notifier
from compute_api.views.entries import EntryCache
from network_api import PORT_CHANGE_HOOK

__all__ = [
    "actions",
    "aggregates",
    "consoles",
    "diagnostics",
    "extensions",
    "flavors",
    "groups",
    "hypervisors",
    "images",
    "keypairs",
    "limits",
    "migrations",
    "network_proxies",
    "os_hosts",
    "password",
    "quotas",
    "register",
    "removed_apis",
    "servers",
    "services",
    "subresources",
    "unsupported",
    "usage",
    "versions",
    "zones",
]


def configure(app: Flask) -> None:
    """Install the notifier, the RPC client of hosts, the server cache and the port change hook in the application."""
    dependencies: Dependencies = app.extensions["sixstack"]
    here = dependencies.settings.host_name if dependencies.settings.agent else None
    notify, remote_client = make_remote_clients(dependencies.settings)
    app.extensions[context.NOTIFY] = Notifier(here, LocalNotifier(dependencies.settings.state), notify)
    app.extensions[context.HOST_CLIENT] = HostClient(here, LocalHostClient(dependencies.settings.state), remote_client)
    app.extensions[context.ENTRIES] = EntryCache()
    app.extensions[PORT_CHANGE_HOOK] = _refresh_interfaces


def _refresh_interfaces(session: Session, server_ids: Iterable[str]) -> None:
    """Queue operations that apply the ports of the servers on their hosts."""
    session.info["notify"] = current_app.extensions[context.NOTIFY]
    interfaces.refresh(session, clock().now(), server_ids, context.request_id())


def register(app: Flask) -> None:
    """Register all routes below /compute."""
    app.register_blueprint(versions.blueprint)
    app.register_blueprint(blueprint.compute)
    app.wsgi_app = strip_project(app.wsgi_app)  # type: ignore[assignment,method-assign]
