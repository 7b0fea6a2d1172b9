"""The routes of compute, under /compute/v2.1; with a project id in the path too, as old clients have it."""

from flask import Flask

from app.web.context import Parts
from compute_api.ask import LocalAsk
from compute_api.nudge import LocalNudge
from compute_api.routes import around, blueprint, context, flavors, keypairs, server_actions, servers, versions
from compute_api.views.entries import Entries

__all__ = ["around", "flavors", "keypairs", "register", "server_actions", "servers", "versions"]


def furnish(app: Flask) -> None:
    """Give the application what compute's routes reach for."""
    parts: Parts = app.extensions["sixstack"]
    app.extensions[context.NUDGE] = LocalNudge(parts.settings.state)
    app.extensions[context.ASK] = LocalAsk(parts.settings.state)
    app.extensions[context.ENTRIES] = Entries()


def register(app: Flask) -> None:
    """Everything under /compute."""
    app.register_blueprint(versions.blueprint)
    app.register_blueprint(blueprint.compute)
