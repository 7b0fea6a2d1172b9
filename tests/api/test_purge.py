"""Purging rows of deleted servers, by command and periodically; usage reports still include them."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from app.commands import cli
from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Base, Database
from compute_api.models import Operation, PastServer, Server, ServerAction
from compute_api.operations import purge as operations_purge
from compute_api.operations.purge import PurgeThread
from tests.api.conftest import Api, Host

COMPUTE = "/compute/v2.1"
LONG = 900.0
"""In seconds. After four times as long the tests' tokens have expired."""


@pytest.fixture
def delete_server(as_member: Api, host: Host) -> Callable[[str], None]:
    def delete(server_id: str) -> None:
        host.conductor.register(host.hypervisor.describe())
        assert as_member.delete(f"{COMPUTE}/servers/{server_id}").status_code == 204
        host.work()

    return delete


@pytest.fixture
def purge(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The purge command of this cloud."""
    if settings.database_url:
        monkeypatch.setenv("SIXSTACK_DATABASE_URL", settings.database_url)
    return lambda *arguments: cli.main(["db", "purge", "--state", str(settings.state), *arguments])


@pytest.fixture
def used(as_admin: Api, as_member: Api, clock: ManualClock) -> Callable[[], tuple[Any, ...]]:
    """Usage of the member's project since yesterday from all API views: list, project, pages."""
    begin = clock.now() - timedelta(days=1)

    def ask() -> tuple[Any, ...]:
        path = f"{COMPUTE}/os-simple-tenant-usage"
        period = f"start={moment(begin)}&end={moment(clock.now())}"
        (listed,) = as_admin.get(f"{path}?{period}").json["tenant_usages"]
        (detailed,) = as_admin.get(f"{path}?{period}&detailed=1").json["tenant_usages"]
        shown = as_member.get(f"{path}/{as_member.project_id}?{period}").json["tenant_usage"]
        assert detailed == shown
        assert detailed == listed | {"server_usages": detailed["server_usages"]}
        pages: list[Any] = []
        following = f"{path}?{period}&detailed=1&limit=2"
        while following:
            page = as_admin.at("2.40").get(following).json
            pages += [server for one in page["tenant_usages"] for server in one["server_usages"]]
            following = next((link["href"] for link in page.get("tenant_usages_links", [])), "")
        assert pages == shown["server_usages"]
        return listed, pages

    return ask


def moment(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def rows(database: Database) -> dict[str, int]:
    with database.reading() as session:
        return {
            name: session.scalar(select(func.count()).select_from(table)) or 0
            for name, table in Base.metadata.tables.items()
        }


def test_purged_servers_are_gone_but_for_usage(
    as_admin: Api,
    as_member: Api,
    make_server: Callable[..., str],
    delete_server: Callable[[str], None],
    host: Host,
    purge: Callable[..., int],
    used: Callable[[], tuple[Any, ...]],
    database: Database,
    clock: ManualClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    resized, old, living = make_server(name="resized"), make_server(name="old"), make_server(name="living")
    clock.advance(100)
    host.conductor.register(host.hypervisor.describe())
    for server_id in (resized, living):
        as_member.post(f"{COMPUTE}/servers/{server_id}/action", json={"resize": {"flavorRef": "2"}})
        host.work()
    clock.advance(100)
    delete_server(resized)
    delete_server(old)
    clock.advance(LONG)
    host.conductor.register(host.hypervisor.describe())
    young = make_server(name="young")
    clock.advance(20)
    delete_server(young)
    make_server(name="newest")
    before, usage = rows(database), used()
    day = moment(clock.now() - timedelta(seconds=100))

    assert purge("--before", day, "--dry-run") == 0
    assert "There are 2 servers" in capsys.readouterr().out
    assert rows(database) == before

    assert purge("--before", day) == 0
    assert "Removed 2 servers" in capsys.readouterr().out
    after = rows(database)
    assert before["servers"] - after["servers"] == 2
    assert before["operations"] - after["operations"] == 2 + 3
    assert before["server_actions"] - after["server_actions"] == 2 + 3
    assert before["migrations"] - after["migrations"] == 1
    assert used() == usage
    listed = as_admin.get(f"{COMPUTE}/servers?all_tenants=1&deleted=1").json["servers"]
    assert [server["name"] for server in listed] == ["young"]
    assert as_member.get(f"{COMPUTE}/servers/{living}").status_code == 200
    assert as_member.at("2.21").get(f"{COMPUTE}/servers/{old}/os-instance-actions").status_code == 404

    assert purge("--before", day) == 0
    assert "Removed 0 servers" in capsys.readouterr().out
    assert rows(database) == after

    assert purge("--before", day, "--with-usage") == 0
    assert "Usage" not in capsys.readouterr().out
    assert (rows(database)["past_servers"], rows(database)["server_sizes"]) == (0, before["server_sizes"] - 1)
    assert {server["name"] for server in used()[1]} == {"young", "living"}


def test_queued_operations_are_not_purged(
    as_member: Api,
    make_server: Callable[..., str],
    delete_server: Callable[[str], None],
    database: Database,
    clock: ManualClock,
) -> None:
    server_id = make_server()
    delete_server(server_id)
    make_server(name="newest")
    with database.transaction() as session:
        operation = session.scalars(select(Operation).where(Operation.server_id == server_id)).first()
        assert operation is not None
        operation.state = "queued"
    clock.advance(LONG)
    assert sum(one.servers for one in operations_purge.purge(database, clock.now())) == 0


def test_ids_are_not_reused(
    make_server: Callable[..., str],
    delete_server: Callable[[str], None],
    host: Host,
    database: Database,
    clock: ManualClock,
) -> None:
    """SQLite gives the next row the number after the highest existing one."""
    first, second = make_server(), make_server()
    delete_server(second)
    delete_server(first)

    def newest() -> list[int | None]:
        with database.reading() as session:
            return [session.scalar(func.max(one)) for one in (Server.seq, Operation.id, ServerAction.id)]

    there = newest()
    clock.advance(LONG)
    assert sum(one.servers for one in operations_purge.purge(database, clock.now())) == 0
    assert newest() == there
    host.conductor.register(host.hypervisor.describe())
    make_server()
    assert sum(one.servers for one in operations_purge.purge(database, clock.now())) == 2


def test_concurrent_purges_survive_a_killed_one(
    make_server: Callable[..., str],
    as_member: Api,
    host: Host,
    database: Database,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_server(max_count=8)
    for server in as_member.get(f"{COMPUTE}/servers").json["servers"]:
        as_member.delete(f"{COMPUTE}/servers/{server['id']}")
    host.work()
    make_server(name="newest")
    clock.advance(LONG)
    monkeypatch.setattr(operations_purge, "BATCH", 2)
    interrupted = operations_purge.purge(database, clock.now())
    assert next(interrupted).servers == 2
    interrupted.close()

    removed: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: removed.extend(one.servers for one in operations_purge.purge(database, clock.now()))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(removed) == 6
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(PastServer)) == 8


def test_cloud_purges_periodically(
    make_server: Callable[..., str],
    delete_server: Callable[[str], None],
    database: Database,
    clock: ManualClock,
) -> None:
    delete_server(make_server())
    make_server(name="newest")
    clock.advance(LONG)
    for patient in (0, -1, 3 * LONG / 86_400, 1e12):
        waiting = PurgeThread(database, clock, patient)
        waiting.start()
        waiting.stop()
    assert rows(database)["past_servers"] == 0
    done = threading.Event()
    eager = PurgeThread(database, clock, LONG / 2 / 86_400)
    eager.start()
    while not done.wait(0.05):
        if rows(database)["past_servers"]:
            done.set()
    eager.stop()
    assert rows(database)["servers"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--before", "yesterday"], "--before must be a date such as 2026-08-31, not 'yesterday'."),
        (["--days", "-1"], "--days must be a number of days, not -1."),
        (["--days", "nan"], "--days must be a number of days, not nan."),
        (["--days", "1e9"], "--days must be a number of days, not 1e+09."),
    ],
)
def test_invalid_dates_are_rejected(
    purge: Callable[..., int], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert purge(*arguments) == 1
    assert said in capsys.readouterr().err
