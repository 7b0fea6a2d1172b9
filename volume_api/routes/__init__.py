"""Blueprints of the block storage API."""

from flask import Flask

from volume_api.routes import storage, versions


def register(app: Flask) -> None:
    """Register /volume."""
    app.register_blueprint(versions.blueprint)
    app.register_blueprint(storage.blueprint, url_prefix="/volume/v3")
