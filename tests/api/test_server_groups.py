"""Server groups: responses, policies in scheduling, and member limits."""

from datetime import UTC, datetime

import pytest

from app.core.settings import Settings
from app.db.database import Database
from compute_api.hosts import hosts
from hypervisor.fake import FakeHypervisor
from tests.api.conftest import Api, Host

GROUPS = "/compute/v2.1/os-server-groups"
SERVERS = "/compute/v2.1/servers"


@pytest.fixture
def second_host(host: Host, database: Database, settings: Settings) -> None:
    with database.transaction() as session:
        hosts.register(session, datetime.now(UTC), FakeHypervisor(name="other-host").describe(), settings)


def make(api: Api, policy: str, **rules: int) -> str:
    body = {"name": "g", "policy": policy, **({"rules": rules} if rules else {})}
    answer = api.at("2.64").post(GROUPS, json={"server_group": body})
    assert answer.status_code == 200, answer.text
    group_id: str = answer.json["server_group"]["id"]
    return group_id


def create(api: Api, image: str, group: str, name: str = "member") -> dict[str, object]:
    body = {"server": {"name": name, "imageRef": image, "flavorRef": "1"}, "os:scheduler_hints": {"group": group}}
    answer = api.post(SERVERS, json=body)
    assert answer.status_code == 202, answer.text
    shown: dict[str, object] = api.at("2.71").get(f"{SERVERS}/{answer.json['server']['id']}").json["server"]
    return shown


def test_responses_by_microversion(as_member: Api, as_admin: Api) -> None:
    old = as_member.post(GROUPS, json={"server_group": {"name": "old", "policies": ["affinity"]}}).json["server_group"]
    assert old == {"id": old["id"], "name": "old", "policies": ["affinity"], "members": [], "metadata": {}}
    new = as_member.at("2.64").get(f"{GROUPS}/{old['id']}").json["server_group"]
    assert (new["policy"], new["rules"], new["project_id"]) == ("affinity", {}, as_member.project_id)
    assert (
        as_member.at("2.64").post(GROUPS, json={"server_group": {"name": "x", "policies": ["affinity"]}}).status_code
        == 400
    )
    refused = as_member.post(GROUPS, json={"server_group": {"name": "x", "policies": ["soft-affinity"]}})
    assert refused.status_code == 400
    rules = {"name": "x", "policy": "affinity", "rules": {"max_server_per_host": 2}}
    assert as_member.at("2.64").post(GROUPS, json={"server_group": rules}).status_code == 400
    assert as_admin.get(GROUPS).json["server_groups"] == []
    assert len(as_admin.get(f"{GROUPS}?all_projects=1").json["server_groups"]) == 1
    assert as_member.get("/compute/v2.1/limits").json["limits"]["absolute"]["totalServerGroupsUsed"] == 1
    assert as_member.delete(f"{GROUPS}/{old['id']}").status_code == 204
    assert as_member.get(f"{GROUPS}/{old['id']}").status_code == 404


def test_anti_affinity_on_one_host_has_room_for_one(as_member: Api, image: str, host: Host) -> None:
    group = make(as_member, "anti-affinity")
    first, second = create(as_member, image, group), create(as_member, image, group)
    assert first["status"] == "BUILD"
    assert first["server_groups"] == [group]
    assert second["status"] == "ERROR"
    message = second["fault"]["message"]  # type: ignore[index]
    assert message.startswith("No valid host was found.")
    assert "anti-affinity" in message
    members = as_member.get(f"{GROUPS}/{group}").json["server_group"]["members"]
    assert members == [first["id"], second["id"]]


def test_anti_affinity_spreads_and_rules_allow_more(
    as_member: Api, as_admin: Api, image: str, host: Host, second_host: None
) -> None:
    group = make(as_member, "anti-affinity", max_server_per_host=2)
    states = [create(as_member, image, group)["status"] for _ in range(5)]
    assert states == ["BUILD"] * 4 + ["ERROR"]
    on = [one["OS-EXT-SRV-ATTR:host"] for one in as_admin.get(f"{SERVERS}/detail?all_tenants=1").json["servers"]]
    assert sorted(name for name in on if name) == ["fake-host", "fake-host", "other-host", "other-host"]


@pytest.mark.parametrize(("policy", "hosts_used"), [("affinity", 1), ("soft-affinity", 1), ("soft-anti-affinity", 2)])
def test_the_other_policies(
    as_member: Api, image: str, host: Host, second_host: None, policy: str, hosts_used: int
) -> None:
    group = make(as_member, policy)
    made = [create(as_member, image, group) for _ in range(4)]
    assert {one["status"] for one in made} == {"BUILD"}
    assert len({one["hostId"] for one in made}) == hosts_used


def test_members_are_counted_and_groups_must_exist(as_member: Api, as_admin: Api, image: str, host: Host) -> None:
    quota = f"/compute/v2.1/os-quota-sets/{as_member.project_id}"
    as_admin.put(quota, json={"quota_set": {"server_groups": 1}})
    as_admin.at("2.50").put(quota, json={"quota_set": {"server_group_members": 1}})
    group = make(as_member, "affinity")
    answer = as_member.at("2.64").post(GROUPS, json={"server_group": {"name": "x", "policy": "affinity"}})
    assert answer.json["forbidden"]["message"] == "Quota exceeded, too many server groups."
    create(as_member, image, group)
    body = {"server": {"name": "x", "imageRef": image, "flavorRef": "1"}, "os:scheduler_hints": {"group": group}}
    answer = as_member.post(SERVERS, json=body)
    assert answer.json["forbidden"]["message"] == "Quota exceeded, too many servers in group"
    for wrong in ("11111111-2222-3333-4444-555555555555", "web"):
        body["os:scheduler_hints"]["group"] = wrong
        assert as_member.post(SERVERS, json=body).status_code == 400
