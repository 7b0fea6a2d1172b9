"""Server lists: filters, sort order, pages, and freshness of cached entries."""

from collections.abc import Callable
from datetime import timedelta
from urllib.parse import quote, urlencode
from uuid import uuid4

import pytest
from sqlalchemy import insert, select, text

from app.core.clock import ManualClock
from app.core.errors import BadRequest
from app.db import database as db_database
from app.db.database import Database
from compute_api.models import Server
from tests.api.conftest import Api, Host

COMPUTE = "/compute/v2.1"
SERVERS = f"{COMPUTE}/servers"


def names(api: Api, query: str) -> list[str]:
    answer = api.get(f"{SERVERS}?{query}")
    assert answer.status_code == 200, answer.text
    return [server["name"] for server in answer.json["servers"]]


@pytest.fixture
def three(as_member: Api, make_server: Callable[..., str], clock: ManualClock) -> dict[str, str]:
    """Servers web, db and old with tags and descriptions, created a minute apart; old is stopped."""
    made = {}
    for name, tags in (("web", ["ci", "x86"]), ("db", ["ci"]), ("old", [])):
        made[name] = make_server(name=name, metadata={"role": name})
        as_member.at("2.26").put(f"{SERVERS}/{made[name]}/tags", json={"tags": tags})
        clock.advance(10)
    return made


def test_tags(as_member: Api, three: dict[str, str]) -> None:
    api = as_member.at("2.26")
    assert names(api, "tags=ci") == ["db", "web"]
    assert names(api, "tags=ci,x86") == ["web"]
    assert names(api, "tags=CI") == []
    assert names(api, "tags-any=x86,nothing") == ["web"]
    assert names(api, "not-tags=ci,x86") == ["old", "db"]
    assert names(api, "not-tags-any=ci,x86") == ["old"]
    assert len(names(as_member.at("2.25"), "tags=ci")) == 3


def test_columns_and_metadata(as_member: Api, as_admin: Api, three: dict[str, str]) -> None:
    as_member.at("2.73").post(f"{SERVERS}/{three['db']}/action", json={"lock": {"locked_reason": "mine"}})
    assert names(as_member.at("2.73"), "locked=true") == ["db"]
    assert names(as_member.at("2.73"), "locked=false") == ["old", "web"]
    assert names(as_member.at("2.83"), "metadata=" + quote('{"role": "db"}')) == ["db"]
    assert len(names(as_member, "flavor=1")) == 3
    assert len(names(as_member, f"flavor={quote('http://cloud/flavors/1')}")) == 3
    assert names(as_member, "flavor=4") == []
    assert names(as_member.at("2.83"), "power_state=4") == []
    assert len(names(as_admin, "all_tenants=1&host=fake-host")) == 3
    address = as_member.get(f"{SERVERS}/{three['web']}").json["server"]["accessIPv6"]
    assert names(as_member.at("2.5"), f"ip6={address}") == ["web"]
    assert names(as_admin, f"all_tenants=1&access_ip_v6={address}") == ["web"]
    as_member.at("2.19").put(f"{SERVERS}/{three['db']}", json={"server": {"description": "keeps the orders"}})
    assert names(as_admin, "all_tenants=1&description=order") == ["db"]
    assert names(as_admin, "all_tenants=1&hostname=%5E(db%7Cold)%24") == ["old", "db"]
    assert names(as_admin, "all_tenants=1&access_ip_v4=.") == []
    assert len(names(as_member.at("2.83"), "availability_zone=ov")) == 3
    broken = as_admin.get(f"{SERVERS}?all_tenants=1&description=(")
    assert "description" in broken.json["badRequest"]["message"]
    assert names(as_member, "ip=10.0.0.1") == []


def test_times(as_member: Api, three: dict[str, str], clock: ManualClock, host: Host) -> None:
    now = clock.now()
    early = (now - timedelta(seconds=15)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert names(as_member, f"changes-since={early}") == ["old"]
    assert names(as_member.at("2.66"), f"changes-before={early}") == ["db", "web"]
    as_member.delete(f"{SERVERS}/{three['web']}")
    host.work()
    assert names(as_member, f"changes-since={early}") == ["old", "web"]
    assert as_member.get(f"{SERVERS}?changes-since=yesterday").status_code == 400
    late = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    answer = as_member.at("2.66").get(f"{SERVERS}?changes-since={late}&changes-before={early}")
    assert "less than or equal to changes-before" in answer.json["badRequest"]["message"]


@pytest.mark.parametrize("key", ["display_name", "created_at", "launched_at", "task_state", "key_name", "host"])
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_every_order_has_whole_pages(
    as_member: Api, make_server: Callable[..., str], three: dict[str, str], key: str, direction: str
) -> None:
    make_server(name="building", work=False)
    whole = names(as_member, f"sort_key={key}&sort_dir={direction}")
    seen: list[str] = []
    path = f"{SERVERS}?sort_key={key}&sort_dir={direction}&limit=1"
    while path:
        body = as_member.get(path).json
        seen += [server["name"] for server in body["servers"]]
        path = next((link["href"] for link in body.get("servers_links", [])), "")
    assert seen == whole
    assert sorted(seen) == ["building", "db", "old", "web"]


def test_unknown_parameters_are_refused_from_2_75_on(as_member: Api, as_admin: Api) -> None:
    for path in ("servers", "flavors", "os-keypairs", "limits", "os-server-groups"):
        assert as_member.at("2.74").get(f"{COMPUTE}/{path}?nonsense=1").status_code == 200, path
        answer = as_member.at("2.75").get(f"{COMPUTE}/{path}?nonsense=1")
        assert answer.status_code == 400, path
        assert "('nonsense' was unexpected)" in answer.json["badRequest"]["message"]
    for path in ("os-hypervisors", "os-services", "os-migrations", "os-simple-tenant-usage"):
        assert as_admin.at("2.75").get(f"{COMPUTE}/{path}?nonsense=1").status_code == 400, path
    assert as_member.at("2.74").get(f"{SERVERS}?sort_key=vcpus").status_code == 200
    assert as_member.at("2.75").get(f"{SERVERS}?sort_key=vcpus").status_code == 400
    assert as_member.get(f"{SERVERS}?sort_key=nonsense").status_code == 400


def test_another_projects_server_is_no_marker(as_admin: Api, three: dict[str, str]) -> None:
    assert as_admin.get(f"{SERVERS}?marker={three['web']}").status_code == 400
    assert as_admin.get(f"{SERVERS}?all_tenants=1&marker={three['db']}").status_code == 200


def test_deleted_servers_are_for_admins(as_member: Api, as_admin: Api, three: dict[str, str], host: Host) -> None:
    as_member.delete(f"{SERVERS}/{three['old']}")
    host.work()
    assert names(as_admin, "all_tenants=1&deleted=true") == ["old"]
    assert names(as_admin, "all_tenants=1&status=deleted") == ["old"]
    assert names(as_member, "deleted=true") == ["db", "web"]
    assert as_member.get(f"{SERVERS}?status=deleted").status_code == 403


def test_a_list_is_never_older_than_the_last_change(as_member: Api, as_admin: Api, three: dict[str, str]) -> None:
    """Changes by a row, by a bulk statement, of ports and of the network's name all appear in the next list."""
    api = as_member.at("2.96")

    def shown(name: str) -> dict[str, object]:
        listed = {one["id"]: one for one in api.get(f"{SERVERS}/detail").json["servers"]}
        single = api.get(f"{SERVERS}/{three[name]}").json["server"]
        single.pop("server_groups")
        assert listed[three[name]] == single
        return single

    assert shown("web")["name"] == "web"
    api.put(f"{SERVERS}/{three['web']}", json={"server": {"name": "renamed"}})
    assert shown("web")["name"] == "renamed"
    api.post(f"{SERVERS}/{three['web']}/metadata", json={"metadata": {"a": "b"}})
    assert shown("web")["metadata"] == {"role": "web", "a": "b"}
    api.post(f"{SERVERS}/{three['web']}/action", json={"os-stop": None})
    assert shown("web")["OS-EXT-STS:task_state"] == "powering-off"
    networks = as_admin.get("/network/v2.0/networks?name=public").json["networks"]
    changed = as_admin.put(f"/network/v2.0/networks/{networks[0]['id']}", json={"network": {"name": "internet"}})
    assert changed.status_code == 200, changed.text
    assert list(shown("db")["addresses"]) == ["internet"]  # type: ignore[call-overload]


def test_members_and_admins_see_different_fields_of_a_server(
    as_member: Api, as_admin: Api, three: dict[str, str]
) -> None:
    path = f"{SERVERS}/{three['web']}"
    for _ in range(2):
        assert "OS-EXT-SRV-ATTR:host" not in as_member.at("2.96").get(path).json["server"]
        assert as_admin.at("2.96").get(path).json["server"]["host_status"] == "UP"
        assert "locked" not in as_member.get(path).json["server"]


def test_a_project_in_the_path(as_member: Api, as_admin: Api, three: dict[str, str]) -> None:
    path = f"{COMPUTE}/{as_member.project_id}/servers"
    assert {one["name"] for one in as_member.get(path).json["servers"]} == set(three)
    assert as_member.get(f"{path}/{three['web']}").json["server"]["name"] == "web"
    answer = as_member.get(f"{COMPUTE}/{as_admin.project_id}/servers")
    assert answer.status_code == 400
    assert "doesn't match Context's project_id" in answer.json["badRequest"]["message"]


@pytest.mark.parametrize("pattern", ["a*a*a*b", "(a+)+$x", ".*?.*?.*?b", "(a|aa)+$x"])
def test_patterns_match_in_linear_time(
    as_member: Api, make_server: Callable[..., str], database: Database, pattern: str
) -> None:
    """A backtracking engine would take hours for hundreds of long names."""
    server_id = make_server(name="a" * 255, work=False)
    with database.transaction() as session:
        row = session.execute(select(Server.__table__).where(Server.id == server_id)).one()._mapping
        copies = [{**row, "id": str(uuid4()), "seq": row["seq"] + at} for at in range(1, 300)]
        session.execute(insert(Server.__table__), copies)
    assert names(as_member, urlencode({"name": pattern})) == []
    assert names(as_member, urlencode({"name": pattern, "changes-since": "2020-01-01T00:00:00Z"})) == []
    assert len(names(as_member, urlencode({"name": "^a+$"}))) == 300


def test_invalid_patterns_are_refused(as_member: Api) -> None:
    for pattern in ("(", "(a)\\1", "(?=a)", "a{99999}", "x" * 256):
        for parameter in ("name", "ip"):
            answer = as_member.get("/compute/v2.1/servers?" + urlencode({parameter: pattern}))
            assert answer.status_code == 400, pattern


def test_postgresql_stops_matching_after_a_while(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite calls RE2")
    monkeypatch.setattr(db_database, "PATTERN_TIMEOUT_MS", 20)
    with pytest.raises(BadRequest, match="takes too long"), database.reading_with_patterns() as session:
        session.execute(text("SELECT pg_sleep(60)"))
    with database.reading() as session:
        assert session.scalar(text("SHOW statement_timeout")) == "0"
