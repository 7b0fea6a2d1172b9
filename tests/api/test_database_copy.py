"""`sixstack db copy`: a cloud copied from SQLite to PostgreSQL works unchanged."""

import fcntl
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import inspect, text

from app.commands import cli
from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from app.factory import configure
from compute_api.conductor.service import LocalConductor
from tests.api.conftest import Api, Host
from tests.postgres import USER, postgres, why_not

COMPUTE = "/compute/v2.1"


@pytest.fixture(scope="module")
def new_server() -> Iterator[Path]:
    """A PostgreSQL server for this module; each test uses a new database."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="sixnew") as directory:
        Path(directory).chmod(0o755)
        with postgres(Path(directory) / "pg"):
            yield Path(directory) / "pg"


@pytest.fixture
def empty(new_server: Path, request: pytest.FixtureRequest) -> str:
    """The URL of an empty PostgreSQL database."""
    name = re.sub(r"\W", "_", request.node.name)[:60].lower()
    control = Database(f"postgresql+psycopg://{USER}@/postgres?host={new_server}")
    with control.reader.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    control.dispose()
    return f"postgresql+psycopg://{USER}@/{name}?host={new_server}"


@pytest.fixture(autouse=True)
def on_sqlite(settings: Settings) -> None:
    if settings.database_url:
        pytest.skip("this copies from SQLite")


def rows(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of the database."""
    from app.db.database import Base

    with database.reading() as session:
        return {
            name: sorted((tuple(row) for row in session.execute(table.select())), key=repr)
            for name, table in Base.metadata.tables.items()
        }


def test_copied_cloud_works(
    as_member: Api,
    as_admin: Api,
    make_server: Callable[..., str],
    host: Host,
    app: Flask,
    database: Database,
    settings: Settings,
    clock: ManualClock,
    empty: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    domain = as_admin.post("/identity/v3/domains", json={"domain": {"name": "zzz"}}).json["domain"]
    parent = as_admin.post("/identity/v3/projects", json={"project": {"name": "p", "domain_id": domain["id"]}})
    child = {"name": "c", "domain_id": domain["id"], "parent_id": parent.json["project"]["id"]}
    assert as_admin.post("/identity/v3/projects", json={"project": child}).status_code == 201
    server_id, gone = make_server(name="ünïcode", metadata={"a": "b"}), make_server()
    as_member.delete(f"{COMPUTE}/servers/{gone}")
    host.work()
    waiting = make_server(work=False)
    before = as_member.get(f"{COMPUTE}/servers/{server_id}").json

    assert cli.main(["db", "copy", empty, "--state", str(settings.state)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^servers +3 rows$", said.replace("\r", "\n"), re.MULTILINE)
    assert "--database-url" in said

    moved = Database(empty)
    try:
        assert rows(moved) == rows(database)
        there = replace(settings, database_url=empty)
        configure(app, there, database=moved, clock=clock)
        conductor = LocalConductor(moved, clock, there)
        assert as_member.get(f"{COMPUTE}/servers/{server_id}").json == before
        Host(host.hypervisor, conductor).work()
        assert as_member.get(f"{COMPUTE}/servers/{waiting}").json["server"]["status"] == "ACTIVE"
        image = as_member.get(f"{COMPUTE}/servers/{server_id}").json["server"]["image"]["id"]
        body = {"server": {"name": "new", "imageRef": image, "flavorRef": "1"}}
        assert as_member.post(f"{COMPUTE}/servers", json=body).status_code == 202
        assert as_member.post(f"{COMPUTE}/os-keypairs", json={"keypair": {"name": "k"}}).status_code == 200
        assert as_admin.post(f"{COMPUTE}/os-aggregates", json={"aggregate": {"name": "a"}}).status_code == 200
        assert as_member.delete(f"{COMPUTE}/servers/{server_id}").status_code == 204
        Host(host.hypervisor, conductor).work()
        assert as_member.get(f"{COMPUTE}/servers/{server_id}").status_code == 404
    finally:
        moved.dispose()


def test_it_can_be_copied_back(
    make_server: Callable[..., str], database: Database, settings: Settings, empty: str, tmp_path: Path
) -> None:
    make_server()
    back = f"sqlite:///{tmp_path}/back.db"
    assert cli.main(["db", "copy", "--from", settings.database, "--to", empty]) == 0
    assert cli.main(["db", "copy", "--from", empty, "--to", back]) == 0
    again = Database(back)
    moved, kept = rows(again), rows(database)
    again.dispose()
    for name in moved:
        assert len(moved[name]) == len(kept[name]), name
    assert {**moved, "servers": []} == {**kept, "servers": []}


def test_unreachable_database_prints_one_line(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"postgresql://nobody@/nothing?host={tmp_path}"
    there = replace(settings, database_url=url)
    environment = {**os.environ, **there.environ()}
    status = "import sys; from app.commands import cli; sys.exit(cli.main(['status']))"
    for run in (["-c", status], ["-m", "app.bootstrap"]):
        assert subprocess.run([sys.executable, *run], env=environment, check=False).returncode == 1
        said = capfd.readouterr().err
        assert said.startswith("sixstack: the database cannot be reached: ")
        assert said.count("\n") == 1


def test_failed_copy_leaves_the_target_unchanged(
    database: Database, settings: Settings, empty: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ["--state", str(settings.state)]

    def refused(*arguments: str) -> str:
        assert cli.main(["db", "copy", *arguments]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert said.startswith("sixstack: ")
        return said

    assert "name the target database" in refused(*state)
    assert "there is no database" in refused(empty, "--state", str(tmp_path / "nothing"))
    assert "is not a database URL" in refused("nonsense", *state)
    assert "cannot be used" in refused("oracle://somewhere/x", *state)
    assert "database error" in refused(f"postgresql+psycopg://nobody@/nothing?host={tmp_path}", *state)
    assert "source and target are the same database" in refused(settings.database, *state)
    with (settings.state / "up.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "the cloud is running" in refused(empty, *state)
    target = Database(empty)
    with target.writer.begin() as connection:
        connection.execute(text("CREATE TABLE something (id int)"))
        assert "has other clients" in refused(empty, *state)
    target.writer.dispose()
    assert "not empty: it has a table something" in refused(empty, *state)
    with target.writer.begin() as connection:
        connection.execute(text("DROP TABLE something"))
    target.writer.dispose()

    with database.transaction() as session:
        session.execute(text("UPDATE identity_users SET name = 'a' || char(0) || 'b' WHERE name = 'demo'"))
    assert "identity_users" in refused(empty, *state)
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001_identity'"))
    assert "another version of Sixstack" in refused(empty, *state)
    assert inspect(target.reader).get_table_names() == []
    target.dispose()
