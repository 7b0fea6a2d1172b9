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
    unsupported,
    versions,
)

PARTS = (networks, subnets, ports, subnetpools, tags, quotas, extensions, unsupported, operators)


TAG = "/<tag>"
"""The end of paths that name a tag, which may end in .json itself."""


def register(app: Flask) -> None:
    """All of /network. Each path under v2.0 may end in .json, as older clients have it."""
    app.register_blueprint(versions.blueprint)
    for part in PARTS:
        app.register_blueprint(part.blueprint, url_prefix="/network/v2.0")
    for rule in [*app.url_map.iter_rules()]:
        if rule.rule.startswith("/network/v2.0") and not rule.rule.endswith(TAG):
            app.add_url_rule(f"{rule.rule}.json", endpoint=rule.endpoint, methods=(rule.methods or set()) - {"OPTIONS"})
