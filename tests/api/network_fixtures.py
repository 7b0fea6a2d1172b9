"""A cloud with the network `public` on a known prefix, two projects and an operator: for network and volume tests."""

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Network
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete

from app.core import errors
from app.core.caller import Caller
from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from app.factory import configure
from network_api.models import Network, Port, SegmentRange, Subnet, SubnetPool
from network_api.resources.bootstrap import bootstrap

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
    """An API client with a token; calls return status and JSON."""

    client: FlaskClient
    token: str

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        response = self.client.open(path, method=method, json=body, headers={"X-Auth-Token": self.token})
        return response.status_code, response.get_json(silent=True)

    def get(self, path: str) -> Any:
        """GET, expecting 200; returns the JSON."""
        status, body = self.call("GET", path)
        assert status == 200, body
        return body

    def post(self, path: str, body: Any) -> Any:
        """POST, expecting 201; returns the JSON."""
        status, made = self.call("POST", path, body)
        assert status == 201, made
        return made

    def put(self, path: str, body: Any) -> Any:
        """PUT, expecting 200; returns the JSON."""
        status, changed = self.call("PUT", path, body)
        assert status == 200, changed
        return changed

    def delete(self, path: str) -> None:
        """DELETE, expecting 204."""
        status, body = self.call("DELETE", path)
        assert status == 204, body

    def call_for_fault(self, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
        """Send a request; returns status, type and message of the fault."""
        status, answer = self.call(method, path, body)
        fault = answer["NeutronError"]
        return status, fault["type"], fault["message"]


class KnownCallers:
    """Authentication stub: tokens are the names of `CALLERS`."""

    def authenticate(self, token: str) -> Caller:
        if token not in CALLERS:
            raise errors.Unauthorized("The request you have made requires authentication.")
        return CALLERS[token]


@pytest.fixture
def cloud(routed: Flask, settings: Settings, database: Database) -> Cloud:
    """The application with a manual clock and a bootstrapped network service on `PREFIX`."""
    clock = ManualClock(NOW)
    configure(routed, settings, database=database, clock=clock)
    routed.extensions["sixstack.tokens"] = KnownCallers()
    with database.transaction() as session:
        for model in (Port, Subnet, Network, SubnetPool, SegmentRange):
            session.execute(delete(model))
        bootstrap(session, NOW, admin_project_id="admins", prefix=PREFIX, vni_base=5000, mtu=1430)
    return Cloud(routed.test_client(), database, clock)


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
