"""The network and volume APIs on their own: an application of just these two, two projects and an operator."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import network_api.routes
import network_api.rules
import volume_api.routes
import volume_api.rules
from app import errors
from app.caller import Caller
from app.clock import ManualClock
from app.db import Base, Database
from app.settings import Settings
from app.web import authentication, faults, request_id
from app.web.context import Parts
from app.web.policy import Policy
from network_api.bootstrap import bootstrap

PREFIX = IPv6Network("2a0a:e5c1:111::/48")
NOW = datetime(2026, 1, 1, tzinfo=UTC)

READER = frozenset({"reader"})
MEMBER = READER | {"member"}
CALLERS = {
    "admin": Caller(user_id="admin", project_id="admins", roles=MEMBER | {"manager", "admin"}),
    "member": Caller(user_id="member", project_id="demo", roles=MEMBER),
    "reader": Caller(user_id="reader", project_id="demo", roles=READER),
    "other": Caller(user_id="other", project_id="other", roles=MEMBER),
}


@dataclass(frozen=True, slots=True)
class Cloud:
    """The application's test client and its database."""

    client: FlaskClient
    database: Database
    clock: ManualClock


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody with a token. Each call answers status and JSON."""

    client: FlaskClient
    token: str

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        response = self.client.open(path, method=method, json=body, headers={"X-Auth-Token": self.token})
        return response.status_code, response.get_json(silent=True)

    def get(self, path: str) -> Any:
        """The JSON of a GET that works."""
        status, body = self.call("GET", path)
        assert status == 200, body
        return body

    def post(self, path: str, body: Any) -> Any:
        """The JSON of a POST that creates."""
        status, made = self.call("POST", path, body)
        assert status == 201, made
        return made

    def put(self, path: str, body: Any) -> Any:
        """The JSON of a PUT that works."""
        status, changed = self.call("PUT", path, body)
        assert status == 200, changed
        return changed

    def delete(self, path: str) -> None:
        """A DELETE that works."""
        status, body = self.call("DELETE", path)
        assert status == 204, body

    def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
        """Status, type and message of Neutron's fault."""
        status, answer = self.call(method, path, body)
        fault = answer["NeutronError"]
        return status, fault["type"], fault["message"]


def authenticate(token: str) -> Caller:
    if token not in CALLERS:
        raise errors.Unauthorized("The request you have made requires authentication.")
    return CALLERS[token]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    database = Database(f"sqlite:///{tmp_path / 'cloud.db'}")
    Base.metadata.create_all(database.writer)
    app = Flask("network", static_folder=None)
    app.url_map.strict_slashes = False
    clock = ManualClock(NOW)
    app.extensions["sixstack"] = Parts(Settings(state=tmp_path), database, clock)
    app.extensions["sixstack.policy"] = Policy({**network_api.rules.RULES, **volume_api.rules.RULES})
    request_id.install(app)
    authentication.install(app, authenticate)
    faults.install(app)
    network_api.routes.register(app)
    volume_api.routes.register(app)
    with database.transaction() as session:
        bootstrap(session, NOW, admin_project_id="admins", prefix=PREFIX, vni_base=5000, mtu=1430)
    yield Cloud(app.test_client(), database, clock)
    database.dispose()


@pytest.fixture
def operator(cloud: Cloud) -> Actor:
    return Actor(cloud.client, "admin")


@pytest.fixture
def member(cloud: Cloud) -> Actor:
    return Actor(cloud.client, "member")


@pytest.fixture
def reader(cloud: Cloud) -> Actor:
    return Actor(cloud.client, "reader")


@pytest.fixture
def other(cloud: Cloud) -> Actor:
    return Actor(cloud.client, "other")
