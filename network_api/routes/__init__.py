"""Plugs the network API into the application."""

from flask import Flask

from network_api.routes import (
    extensions,
    networks,
    operators,
    ports,
    quotas,
    subnetpools,
    subnets,
    tags,
    unneeded,
    versions,
)

PARTS = (networks, subnets, ports, subnetpools, tags, quotas, extensions, unneeded, operators)


def register(app: Flask) -> None:
    """All of /network."""
    app.register_blueprint(versions.blueprint)
    for part in PARTS:
        app.register_blueprint(part.blueprint, url_prefix="/network/v2.0")
