"""Plugs the network API into the application."""

from flask import Flask

from network_api.routes import extensions, networks, operators, ports, subnets, unneeded, versions


def register(app: Flask) -> None:
    """All of /network."""
    app.register_blueprint(versions.blueprint)
    for module in (networks, subnets, ports, extensions, unneeded, operators):
        app.register_blueprint(module.blueprint, url_prefix="/network/v2.0")
