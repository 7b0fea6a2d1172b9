"""Image API fixtures with stub authentication: members of two projects, a reader and an admin."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import factory
from app.core import errors
from app.core.caller import Caller
from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from app.web import authentication
from app.web.context import Dependencies
from image_api.stores.file import FileStore

READER = frozenset({"reader"})
MEMBER = READER | {"member"}
CALLERS = {
    "admin": Caller(user_id="admin", project_id="admins", roles=MEMBER | {"manager", "admin"}),
    "member": Caller(user_id="member", project_id="demo", roles=MEMBER),
    "reader": Caller(user_id="reader", project_id="demo", roles=READER),
    "other": Caller(user_id="other", project_id="other", roles=MEMBER),
    "third": Caller(user_id="third", project_id="third", roles=MEMBER),
    "unscoped": Caller(user_id="member"),
}
V21 = "application/openstack-images-v2.1-json-patch"
V20 = "application/openstack-images-v2.0-json-patch"
RAW = b"\x11 a disk, says its owner " * 4096


@dataclass(slots=True)
class Actor:
    """An image API client with a token. Paths are relative to /image/v2."""

    client: FlaskClient
    token: str

    def call(self, method: str, path: str, **more: Any) -> TestResponse:
        headers = {"X-Auth-Token": self.token, **more.pop("headers", {})}
        return self.client.open(f"/image/v2{path}", method=method, headers=headers, **more)

    def get(self, path: str, **more: Any) -> TestResponse:
        return self.call("GET", path, **more)

    def create(self, **fields: Any) -> dict[str, Any]:
        body = {"name": "disk", "disk_format": "raw", "container_format": "bare", **fields}
        response = self.call("POST", "/images", json=body)
        assert response.status_code == 201, response.text
        return response.get_json()

    def upload(self, image_id: str, content: bytes = RAW, **headers: str) -> TestResponse:
        return self.call(
            "PUT",
            f"/images/{image_id}/file",
            data=content,
            headers={"Content-Type": "application/octet-stream", **headers},
        )

    def make(self, content: bytes = RAW, **fields: Any) -> dict[str, Any]:
        """Create an image, upload its content and return it, ACTIVE."""
        image = self.create(**fields)
        response = self.upload(image["id"], content)
        assert response.status_code == 204, response.text
        return self.show(image["id"])

    def show(self, image_id: str) -> dict[str, Any]:
        response = self.get(f"/images/{image_id}")
        assert response.status_code == 200, response.text
        return response.get_json()

    def patch(self, image_id: str, *operations: Any, kind: str = V21) -> TestResponse:
        return self.call("PATCH", f"/images/{image_id}", data=json.dumps(list(operations)), content_type=kind)

    def names(self, query: str = "") -> list[str]:
        """Return the names of the images on the first page, in order."""
        response = self.get(f"/images{query}")
        assert response.status_code == 200, response.text
        return [image["name"] for image in response.get_json()["images"]]


@dataclass(slots=True)
class ImageCloud:
    """The application with its database, clock and image store."""

    app: Flask
    database: Database
    clock: ManualClock
    store: FileStore

    def actor(self, token: str) -> Actor:
        return Actor(self.app.test_client(), token)

    def configure(self, **settings: Any) -> None:
        dependencies: Dependencies = self.app.extensions["sixstack"]
        self.app.extensions["sixstack"] = replace(dependencies, settings=replace(dependencies.settings, **settings))


@pytest.fixture
def cloud(routed: Flask, settings: Settings) -> Iterator[ImageCloud]:
    database = Database(settings.database, synchronous="OFF")
    clock = ManualClock()
    factory.configure(routed, settings, database=database, clock=clock)
    routed.extensions["sixstack.tokens"] = Callers()
    yield ImageCloud(routed, database, clock, routed.extensions["sixstack.images.store"])
    database.dispose()


class Callers:
    """Authentication stub: tokens are the names of `CALLERS`."""

    def authenticate(self, token: str) -> Caller:
        return _authenticate(token)


def _authenticate(token: str) -> Caller:
    try:
        return CALLERS[token]
    except KeyError:
        raise errors.Unauthorized(authentication.REQUIRED) from None


@pytest.fixture
def member(cloud: ImageCloud) -> Actor:
    return cloud.actor("member")


@pytest.fixture
def admin(cloud: ImageCloud) -> Actor:
    return cloud.actor("admin")


@pytest.fixture
def other(cloud: ImageCloud) -> Actor:
    return cloud.actor("other")


@pytest.fixture
def reader(cloud: ImageCloud) -> Actor:
    return cloud.actor("reader")
