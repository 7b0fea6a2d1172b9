"""The routes of the image service, and what they need, plugged into the application."""

from flask import Flask

from app.web.context import Parts
from image_api.routes import files, images, info, tags, versions
from image_api.store import FileStore


def register(app: Flask) -> None:
    """Everything under /image."""
    parts: Parts = app.extensions["sixstack"]
    app.extensions["sixstack.images.store"] = FileStore(parts.settings.state / "images" / "store")
    for module in (versions, images, tags, files, info):
        app.register_blueprint(module.blueprint)
