"""Blueprints of the image service; creates its store, transfer limiter and import worker."""

from flask import Flask

from app.web.context import Dependencies
from image_api.imports.web_download import EgressPolicy
from image_api.imports.worker import ImportWorker
from image_api.routes import actions, files, images, imports, info, members, tags, versions
from image_api.routes.dependencies import make_limits, refuse_nul
from image_api.routes.transfers import TransferLimiter
from image_api.stores.factory import make_store

MODULES = (versions, images, tags, files, imports, members, actions, info)
for _module in MODULES:
    _module.blueprint.before_request(refuse_nul)


def configure(app: Flask) -> None:
    """Add store, transfer limiter and import worker to the app extensions; `start` starts the worker."""
    dependencies: Dependencies = app.extensions["sixstack"]
    settings = dependencies.settings
    store = make_store(settings)
    egress_policy = EgressPolicy.from_settings(
        settings.image_import_ports, settings.image_import_allow, settings.prefix
    )
    app.extensions["sixstack.images.store"] = store
    app.extensions["sixstack.images.transfers"] = TransferLimiter(settings.transfer_threads)
    app.extensions["sixstack.images.worker"] = ImportWorker(
        dependencies.database, store, dependencies.clock, egress_policy, lambda used: make_limits(settings, used)
    )


def register(app: Flask) -> None:
    """Register all blueprints under /image."""
    for module in MODULES:
        app.register_blueprint(module.blueprint)


def start(app: Flask) -> None:
    """Start the import worker; only for processes that serve requests."""
    worker: ImportWorker = app.extensions["sixstack.images.worker"]
    worker.start()
