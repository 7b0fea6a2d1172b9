"""Fixtures of the API tests: the application on a real database, with a fake host that works on request."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import bootstrap
from app.core import installation
from app.core.clock import ManualClock
from app.core.errors import Conflict
from app.core.settings import Settings
from app.db.database import Database
from app.factory import configure, create_unconfigured_app
from compute_agent.agent import Agent
from compute_agent.tasks import carry_out
from compute_api.conductor.service import LocalConductor
from compute_api.routes.base import context
from hypervisor.api.errors import HypervisorError
from hypervisor.fake import FakeHypervisor
from tests.api import compute_schemas
from tests.postgres import Postgres, postgres, why_not


@dataclass
class Api:
    """API client of one user: requests carry the token and, if set, a microversion.

    Every compute response is validated against tempest's schemas.
    """

    client: FlaskClient
    token: str | None = None
    project_id: str = ""
    user_id: str = ""
    version: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def at(self, version: str) -> "Api":
        """Return a client of the same user with this compute microversion."""
        return Api(self.client, self.token, self.project_id, self.user_id, version, self.headers)

    def request(self, method: str, path: str, **kwargs: Any) -> TestResponse:
        headers = {**self.headers, **kwargs.pop("headers", {})}
        if self.token:
            headers["X-Auth-Token"] = self.token
        if self.version:
            headers["OpenStack-API-Version"] = f"compute {self.version}"
        response = self.client.open(path, method=method, headers=headers, **kwargs)
        compute_schemas.check(method, path, kwargs.get("json"), response)
        return response

    def get(self, path: str, **kwargs: Any) -> TestResponse:
        return self.request("GET", path, **kwargs)

    def post(self, path: str, **kwargs: Any) -> TestResponse:
        return self.request("POST", path, **kwargs)

    def put(self, path: str, **kwargs: Any) -> TestResponse:
        return self.request("PUT", path, **kwargs)

    def patch(self, path: str, **kwargs: Any) -> TestResponse:
        return self.request("PATCH", path, **kwargs)

    def delete(self, path: str, **kwargs: Any) -> TestResponse:
        return self.request("DELETE", path, **kwargs)


@dataclass
class Host:
    """Fake host and its conductor. `work` executes all queued operations, `reconcile` runs one reconciliation."""

    hypervisor: FakeHypervisor
    conductor: LocalConductor

    def work(self) -> int:
        done = 0
        while waiting := self.conductor.waiting():
            for operation_id in waiting:
                work = self.conductor.claim(operation_id)
                if work is not None:
                    self.conductor.finish(work, carry_out(work, self.hypervisor, 1.0))
                    done += 1
        return done

    def reconcile(self) -> None:
        Agent(self.conductor, self.hypervisor, threads=1, grace_seconds=1.0).reconcile()


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres | None]:
    """PostgreSQL when SIXSTACK_TEST_DATABASE=postgresql; otherwise each test has a SQLite file."""
    if os.environ.get("SIXSTACK_TEST_DATABASE") != "postgresql":
        yield None
        return
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="sixpg") as directory:
        Path(directory).chmod(0o755)
        with postgres(Path(directory) / "pg") as running:
            yield running


@dataclass(frozen=True)
class Template:
    """Bootstrapped state directory that each test copies, its passwords, and a token for each user."""

    state: Path
    passwords: dict[str, str]
    logins: dict[str, Api]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, routed: Flask, server: Postgres | None) -> Template:
    state = tmp_path_factory.mktemp("template") / "state"
    settings = Settings(state=state, host_name="fake-host", database_url=server.url if server else None)
    chosen = installation.prepare(settings)
    database = Database(settings.database)
    bootstrap.migrate(database)
    with database.transaction() as session:
        clouds = bootstrap.bootstrap(session, datetime.now(UTC), settings, chosen)
    assert clouds is not None
    bootstrap.write_clouds(settings, clouds)
    made = yaml.safe_load((state / "clouds.yaml").read_text())["clouds"].values()
    passwords = {cloud["auth"]["username"]: cloud["auth"]["password"] for cloud in made}
    configure(routed, settings, database=database)
    logins = {name: authenticated(routed, name, password, name) for name, password in passwords.items()}
    database.dispose()
    if server:
        server.take_snapshot()
    return Template(state, passwords, logins)


def authenticated(app: Flask, name: str, password: str, project: str) -> Api:
    """Return the API client of a user with a token scoped to the project."""
    client = app.test_client()
    user = {"name": name, "domain": {"id": "default"}, "password": password}
    body = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": project, "domain": {"id": "default"}}},
        }
    }
    response = client.post("/identity/v3/auth/tokens", json=body)
    assert response.status_code == 201, response.text
    token = response.json["token"]
    return Api(client, response.headers["X-Subject-Token"], token["project"]["id"], token["user"]["id"])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def settings(template: Template, tmp_path: Path, server: Postgres | None) -> Settings:
    state = tmp_path / "state"
    shutil.copytree(template.state, state)
    if server:
        server.reset()
    return Settings(state=state, host_name="fake-host", database_url=server.url if server else None)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    made = Database(settings.database)
    yield made
    made.dispose()


@pytest.fixture(scope="session")
def routed() -> Flask:
    """The application with all routes; registering them takes longer than most tests."""
    return create_unconfigured_app()


@pytest.fixture
def app(routed: Flask, settings: Settings, database: Database, clock: ManualClock) -> Flask:
    configure(routed, settings, database=database, clock=clock)
    return routed


@pytest.fixture
def host(app: Flask, database: Database, clock: ManualClock, settings: Settings) -> Host:
    """A host with room for hundreds of servers."""
    hypervisor = FakeHypervisor(name="fake-host")
    conductor = LocalConductor(database, clock, settings)
    conductor.register(hypervisor.describe())

    def call(_host: str | None, method: str, machine_id: str, **arguments: Any) -> Any:
        from compute_agent.host_rpc import METHODS

        try:
            return METHODS[method](hypervisor, machine_id=machine_id, **arguments)
        except HypervisorError as error:
            raise Conflict(str(error)) from None

    app.extensions[context.HOST_CLIENT] = call
    return Host(hypervisor, conductor)


@pytest.fixture
def client(app: Flask) -> Api:
    """A client without a token."""
    return Api(app.test_client())


@pytest.fixture
def log_in(app: Flask, template: Template) -> Callable[[str], Api]:
    """`log_in("demo")`: a user of the bootstrapped cloud, scoped to the project of the same name."""

    def login(name: str, password: str | None = None, project: str | None = None) -> Api:
        return authenticated(app, name, password or template.passwords[name], project or name)

    return login


@pytest.fixture
def as_member(app: Flask, template: Template) -> Api:
    """The demo user, member of project demo."""
    return replace(template.logins["demo"], client=app.test_client())


@pytest.fixture
def as_admin(app: Flask, template: Template) -> Api:
    """The admin user."""
    return replace(template.logins["admin"], client=app.test_client())


@pytest.fixture
def image(as_member: Api) -> str:
    """The id of an active raw image of 1 MiB that belongs to project demo."""
    body = {"name": "disk", "disk_format": "raw", "container_format": "bare"}
    image_id: str = as_member.post("/image/v2/images", json=body).json["id"]
    response = as_member.put(
        f"/image/v2/images/{image_id}/file",
        data=bytes(1 << 20),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert response.status_code == 204, response.text
    return image_id


@pytest.fixture
def make_server(as_member: Api, image: str, host: Host) -> Callable[..., str]:
    """`make_server(name="x", work=True, **fields)`: the id of a new server, ACTIVE when `work`."""

    def make(name: str = "server", *, work: bool = True, **fields: Any) -> str:
        body = {"server": {"name": name, "imageRef": image, "flavorRef": "1", **fields}}
        response = as_member.post("/compute/v2.1/servers", json=body)
        assert response.status_code == 202, response.text
        if work:
            host.work()
        server_id: str = response.json["server"]["id"]
        return server_id

    return make
