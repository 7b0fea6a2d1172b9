# ruff: noqa: F401, F811 (fixtures)
"""Block storage API without volumes: empty lists, limits of 0, rejected writes."""

import pytest

from tests.api.network_fixtures import Actor, Cloud, cloud, member, operator, other

V3 = "/volume/v3"


def test_versions_support_discovery(cloud: Cloud) -> None:
    for path, status in (("/volume/", 300), ("/volume", 300), (V3, 200), (f"{V3}/", 200)):
        response = cloud.client.get(path)
        assert response.status_code == status
        [version] = response.get_json()["versions"]
        assert (version["id"], version["min_version"], version["version"]) == ("v3.0", "3.0", "3.0")
        assert version["links"][0]["href"] == "http://localhost/volume/v3/"


@pytest.mark.parametrize("base", [V3, f"{V3}/demo"])
def test_lists_are_empty_with_and_without_the_project_in_the_path(member: Actor, base: str) -> None:
    for path, body in (
        ("volumes", {"volumes": []}),
        ("volumes/detail", {"volumes": []}),
        ("snapshots", {"snapshots": []}),
        ("snapshots/detail", {"snapshots": []}),
        ("backups/detail", {"backups": []}),
        ("types", {"volume_types": []}),
        ("os-availability-zone", {"availabilityZoneInfo": []}),
        ("extensions", {"extensions": []}),
    ):
        assert member.get(f"{base}/{path}") == body


def test_limits_and_quotas_are_zero(member: Actor, operator: Actor) -> None:
    absolute = member.get(f"{V3}/limits")["limits"]["absolute"]
    assert (absolute["maxTotalVolumes"], absolute["totalVolumesUsed"]) == (0, 0)
    assert member.get(f"{V3}/os-quota-sets/demo")["quota_set"]["volumes"] == 0
    assert member.get(f"{V3}/os-quota-sets/demo?usage=True")["quota_set"]["gigabytes"]["in_use"] == 0
    assert member.call("GET", f"{V3}/os-quota-sets/other")[0] == 403
    assert operator.get(f"{V3}/os-quota-sets/other")["quota_set"]["id"] == "other"


def test_creating_a_volume_is_refused_with_the_reason(member: Actor) -> None:
    status, body = member.call("POST", f"{V3}/volumes", {"volume": {"size": 1}})
    assert status == 413
    assert "This cloud has no volumes" in body["overLimit"]["message"]
    status, body = member.call("PUT", f"{V3}/os-quota-sets/demo", {})
    assert status == 403


def test_quotas_cannot_be_raised(operator: Actor) -> None:
    status, body = operator.call("PUT", f"{V3}/os-quota-sets/demo", {"quota_set": {"volumes": 9}})
    assert status == 400
    assert "cannot be changed" in body["badRequest"]["message"]


def test_any_volume_id_is_not_found(member: Actor) -> None:
    status, body = member.call("GET", f"{V3}/volumes/x")
    assert (status, body["itemNotFound"]["message"]) == (404, "Volume x could not be found.")


def test_another_projects_path_is_malformed(member: Actor, other: Actor) -> None:
    assert member.call("GET", f"{V3}/other/volumes")[0] == 400
    assert other.get(f"{V3}/other/volumes") == {"volumes": []}


def test_only_microversion_3_0_is_accepted(cloud: Cloud) -> None:
    token = {"X-Auth-Token": "member"}
    response = cloud.client.get(f"{V3}/limits", headers=token)
    assert response.headers["OpenStack-API-Version"] == "volume 3.0"
    later = cloud.client.get(f"{V3}/limits", headers={**token, "OpenStack-API-Version": "volume 3.71"})
    assert later.status_code == 406
