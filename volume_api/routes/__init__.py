"""Plugs the block-storage API into the application."""

from flask import Flask

from volume_api.routes import storage, versions


def register(app: Flask) -> None:
    """All of /volume."""
    app.register_blueprint(versions.blueprint)
    app.register_blueprint(storage.blueprint, url_prefix="/volume/v3")
