"""Application factory: assembles the Flask application from the services."""

import gc
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import yaml
from flask import Flask
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

import compute_api.policies
import compute_api.routes
import identity_api.policies
import identity_api.routes
import image_api.policies
import image_api.routes
import network_api.policies
import network_api.routes
import volume_api.policies
import volume_api.routes
from app import host_images
from app.core import log_context, processes
from app.core.clock import Clock, SystemClock
from app.core.settings import Settings
from app.db.database import Database
from app.web import authentication, faults, host_header, request_id
from app.web.context import Dependencies
from app.web.policy import Policy
from identity_api.tokens.tokens import Tokens

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

RULES = {
    **identity_api.policies.RULES,
    **image_api.policies.RULES,
    **compute_api.policies.RULES,
    **network_api.policies.RULES,
    **volume_api.policies.RULES,
}


class NoSessions(SessionInterface):
    """Disables Flask sessions: the APIs use no cookies."""

    def open_session(self, app: Flask, request: Any) -> NullSession | None:  # noqa: ARG002
        return None


class Sixstack(Flask):
    """Flask without sessions and async views, which take a tenth of each request's time."""

    session_interface = NoSessions()

    def ensure_sync(self, func: Any) -> Any:
        return func

    def wsgi_app(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        environ["PATH_INFO"] = merge_slashes(environ["PATH_INFO"])
        return super().wsgi_app(environ, start_response)


def create_app(settings: Settings, *, database: Database | None = None, clock: Clock | None = None) -> Flask:
    """Create the WSGI application. The database must exist and be migrated."""
    app = create_unconfigured_app()
    configure(app, settings, database=database, clock=clock)
    return app


def create_unconfigured_app() -> Flask:
    """Create an application with its routes only, which are the same for all installations; see `configure`."""
    app = Sixstack("sixstack", static_folder=None)
    app.url_map.strict_slashes = False
    request_id.install(app)
    host_header.install(app)
    authentication.install(app, lambda token: cast(Tokens, app.extensions["sixstack.tokens"]).authenticate(token))
    faults.install(app)
    for service in (identity_api, image_api, compute_api, network_api, volume_api):
        service.routes.register(app)
    app.register_blueprint(host_images.blueprint)
    return app


def configure(app: Flask, settings: Settings, *, database: Database | None = None, clock: Clock | None = None) -> None:
    """Set the application's settings, database and clock, and the dependencies that are made from them."""
    database = database or Database(
        settings.database,
        synchronous=settings.sqlite_synchronous,
        pool_size=settings.worker_threads + settings.transfer_threads + 2,
        connections=settings.database_connections,
    )
    clock = clock or SystemClock()
    app.extensions.clear()
    app.extensions["sixstack"] = Dependencies(settings, database, clock)
    app.extensions[host_header.KNOWN_HOSTS] = host_header.KnownHosts(settings)
    app.extensions["sixstack.policy"] = Policy(RULES, _overrides(settings))
    app.extensions["sixstack.tokens"] = Tokens(database, clock, settings)
    for service in (identity_api, image_api, compute_api):
        service.routes.configure(app)


def merge_slashes(path: str) -> str:
    """Replace each run of slashes in the path by one, as OpenStack's routers do."""
    return re.sub("/{2,}", "/", path) if "//" in path else path


def is_streamed(app: Flask, method: str, path: str) -> bool:
    """Whether the view of this request streams the request body."""
    if method != "PUT":
        return False
    try:
        endpoint, _ = app.url_map.bind("").match(merge_slashes(path), method)
    except (HTTPException, RequestRedirect):
        return False
    return bool(getattr(app.view_functions[endpoint], "streamed", False))


def from_environment() -> Flask:
    """Create the application of an API worker process with settings from SIXSTACK_* variables."""
    processes.end_with_parent()
    log_context.configure()
    app = create_app(Settings.read({}))
    image_api.routes.start(app)
    gc.freeze()  # exclude loaded modules from garbage collection, which would pause requests for 0.1 s
    return app


def _overrides(settings: Settings) -> dict[str, str]:
    path = settings.state / "policy.yaml"
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}
