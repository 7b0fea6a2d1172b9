"""Cloud under test: a durable PostgreSQL, API processes and clients."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import yaml
from sqlalchemy import create_engine, text

from app import bootstrap
from app.core import installation
from app.core.settings import Settings
from benchmarks import cloud
from benchmarks.load import Client
from tests.postgres import Postgres, postgres

DURABLE = "-c max_wal_size=4GB -c track_io_timing=on"
"""Debian's default durability; a large max_wal_size keeps checkpoints of populating out of the results."""
VERSION = "compute 2.96"


@dataclass(frozen=True)
class Cluster:
    """An installation on PostgreSQL; only the database is running."""

    settings: Settings
    postgres: Postgres

    @property
    def postmaster(self) -> int:
        return int((self.postgres.directory / "data/postmaster.pid").read_text().split()[0])

    def trees(self, api: int) -> dict[str, int]:
        """Return the root pids of the process trees that serve requests, by name."""
        return {"api": api, "postgres": self.postmaster}

    def database_mib(self) -> float:
        """Return the size of tables and indexes in MiB."""
        with create_engine(self.settings.database).connect() as connection:
            return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0) / 2**20

    def token(self, user: str, project_id: str | None = None) -> str:
        """Log in as demo, scoped to a project, or as admin; returns the token."""
        name = "sixstack" if user == "demo" else "sixstack-admin"
        auth = yaml.safe_load((self.settings.state / "clouds.yaml").read_text())["clouds"][name]["auth"]
        if project_id is None:
            return cloud.token(self.settings, name)[0]
        who = {"name": auth["username"], "domain": {"id": "default"}, "password": auth["password"]}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": who}},
                "scope": {"project": {"id": project_id}},
            }
        }
        connection = Client(self.settings.address[1])._connection
        connection.request("POST", "/identity/v3/auth/tokens", orjson.dumps(body))
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        return answer.getheader("X-Subject-Token") or ""

    def client(self, token: str) -> Client:
        """Return a client with a new connection."""
        return Client(self.settings.address[1], {"X-Auth-Token": token, "OpenStack-API-Version": VERSION})


@contextmanager
def cluster(work: Path) -> Iterator[Cluster]:
    """Run PostgreSQL in the directory, whose path must be short enough for a socket name."""
    work.chmod(0o755)
    with postgres(work / "pg", DURABLE) as server:
        settings = Settings(
            state=work / "state",
            listen=f"127.0.0.1:{cloud.free_port()}",
            host_name=cloud.HOST,
            database_url=server.url,
        )
        bootstrap.prepare(settings, installation.prepare(settings))
        yield Cluster(settings, server)
