"""Target of the fuzzer: the application on SQLite with a fake hypervisor, and tokens of two users."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from flask import Flask
from flask.testing import FlaskClient

from app import bootstrap
from app.core import installation
from app.core.clock import ManualClock
from app.core.errors import Conflict
from app.core.settings import Settings
from app.db.database import Database
from app.factory import configure
from compute_agent.host_rpc import METHODS
from compute_agent.tasks import carry_out
from compute_api.conductor.service import LocalConductor
from compute_api.routes.base import context
from hypervisor.api.errors import HypervisorError
from hypervisor.fake import FakeHypervisor

USERS = ("admin", "demo")


@dataclass
class Cloud:
    """A cloud in a directory of its own; `restore` returns to the state after bootstrap."""

    app: Flask
    directory: Path

    def __post_init__(self) -> None:
        self.template = self.directory / "template"
        settings = Settings(state=self.template, host_name="fake-host")
        chosen = installation.prepare(settings)
        database = Database(settings.database)
        bootstrap.migrate(database)
        with database.transaction() as session:
            clouds = bootstrap.bootstrap(session, datetime.now(UTC), settings, chosen)
        assert clouds is not None
        bootstrap.write_clouds(settings, clouds)
        database.dispose()
        made = yaml.safe_load((self.template / "clouds.yaml").read_text())["clouds"].values()
        self.passwords = {cloud["auth"]["username"]: cloud["auth"]["password"] for cloud in made}
        self.database: Database | None = None
        self.restore()

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def restore(self) -> None:
        """Restore the state after bootstrap."""
        if self.database is not None:
            self.database.dispose()
        state = self.directory / "state"
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(self.template, state)
        settings = Settings(state=state, host_name="fake-host")
        self.database = Database(settings.database)
        clock = ManualClock(datetime.now(UTC).replace(microsecond=0))
        configure(self.app, settings, database=self.database, clock=clock)
        self.hypervisor = FakeHypervisor(name="fake-host")
        self.conductor = LocalConductor(self.database, clock, settings)
        self.conductor.register(self.hypervisor.describe())
        self.app.extensions[context.HOST_CLIENT] = self._ask
        self.tokens = {name: self._log_in(name) for name in USERS}

    def works(self) -> bool:
        """Whether the users' tokens are still accepted."""
        paths = {"admin": "/identity/v3/users", "demo": "/compute/v2.1/servers"}
        answers = [self.client.get(path, headers={"X-Auth-Token": self.tokens[name]}) for name, path in paths.items()]
        return all(answer.status_code == 200 for answer in answers)

    def work(self) -> None:
        """Execute the host's queued operations."""
        for operation_id in self.conductor.waiting():
            work = self.conductor.claim(operation_id)
            if work is not None:
                self.conductor.finish(work, carry_out(work, self.hypervisor, 1.0))

    def close(self) -> None:
        if self.database is not None:
            self.database.dispose()

    def _ask(self, _host: str | None, question: str, machine_id: str, **arguments: Any) -> Any:
        try:
            return METHODS[question](self.hypervisor, machine_id=machine_id, **arguments)
        except HypervisorError as error:
            raise Conflict(str(error)) from None

    def _log_in(self, name: str) -> str:
        user = {"name": name, "domain": {"id": "default"}, "password": self.passwords[name]}
        scope = {"project": {"name": name, "domain": {"id": "default"}}}
        identity = {"methods": ["password"], "password": {"user": user}}
        answer = self.client.post("/identity/v3/auth/tokens", json={"auth": {"identity": identity, "scope": scope}})
        assert answer.status_code == 201, answer.text
        token: str = answer.headers["X-Subject-Token"]
        return token
