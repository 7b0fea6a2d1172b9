"""Blueprints of the network API."""

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

MODULES = (networks, subnets, ports, subnetpools, tags, quotas, extensions, unsupported, operators)

TAG = "/<tag>"
"""End of paths with the name of a tag, which may itself end in .json."""


def register(app: Flask) -> None:
    """Register /network. Each path under v2.0 is also served with the suffix .json, which older clients send."""
    app.register_blueprint(versions.blueprint)
    for module in MODULES:
        app.register_blueprint(module.blueprint, url_prefix="/network/v2.0")
    for rule in [*app.url_map.iter_rules()]:
        if rule.rule.startswith("/network/v2.0") and not rule.rule.endswith(TAG):
            app.add_url_rule(f"{rule.rule}.json", endpoint=rule.endpoint, methods=(rule.methods or set()) - {"OPTIONS"})
