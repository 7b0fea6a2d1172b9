"""Quotas of users within a project (`?user_id=`): lists, updates and enforcement."""

from collections.abc import Callable

import pytest

from tests.api.conftest import Api

COMPUTE = "/compute/v2.1"


@pytest.fixture
def path(as_member: Api) -> str:
    return f"{COMPUTE}/os-quota-sets/{as_member.project_id}"


def set_user(api: Api, path: str, user_id: str, **limits: object) -> int:
    return api.put(f"{path}?user_id={user_id}", json={"quota_set": limits}).status_code


def boot(api: Api, image: str, **fields: object) -> int:
    body = {"server": {"name": "x", "imageRef": image, "flavorRef": "1", "networks": "none", **fields}}
    return api.at("2.37").post(f"{COMPUTE}/servers", json=body).status_code


def test_a_user_has_the_projects_limits_until_they_are_set(as_admin: Api, as_member: Api, path: str) -> None:
    shown = as_admin.get(f"{path}?user_id={as_member.user_id}").json["quota_set"]
    assert shown == as_admin.get(path).json["quota_set"]
    answer = as_admin.put(f"{path}?user_id={as_member.user_id}", json={"quota_set": {"ram": 2048}})
    assert answer.json["quota_set"]["ram"] == 2048
    assert as_member.get(f"{path}?user_id={as_member.user_id}").json["quota_set"]["ram"] == 2048
    assert as_admin.get(path).json["quota_set"]["ram"] == 204800
    assert as_admin.get(f"{path}?user_id=another").json["quota_set"]["ram"] == 204800
    assert as_admin.delete(f"{path}?user_id={as_member.user_id}").status_code == 202
    assert as_admin.get(f"{path}?user_id={as_member.user_id}").json["quota_set"]["ram"] == 204800


def test_user_quotas_are_set_by_admins(as_member: Api, path: str) -> None:
    assert set_user(as_member, path, as_member.user_id, cores=1) == 403
    assert as_member.delete(f"{path}?user_id={as_member.user_id}").status_code == 403


def test_users_share_the_projects_limit(as_admin: Api, as_member: Api, path: str) -> None:
    assert as_admin.put(path, json={"quota_set": {"cores": 20}}).status_code == 200
    assert set_user(as_admin, path, "one", cores=15) == 200
    too_many = as_admin.put(f"{path}?user_id=two", json={"quota_set": {"cores": 6}})
    assert too_many.status_code == 400
    assert "must be less than or equal to 5" in too_many.json["badRequest"]["message"]
    assert set_user(as_admin, path, "two", cores=-1) == 400
    assert set_user(as_admin, path, "two", cores=5) == 200
    assert set_user(as_admin, path, "one", cores=10) == 200
    assert set_user(as_admin, path, "two", cores=100, force=True) == 200
    assert set_user(as_admin, path, "x" * 256, cores=0) == 400


def test_a_users_servers_count_against_the_users_limit(
    as_admin: Api, as_member: Api, image: str, path: str, make_server: Callable[..., str]
) -> None:
    make_server()
    assert set_user(as_admin, path, as_member.user_id, instances=0) == 400
    assert set_user(as_admin, path, as_member.user_id, instances=2) == 200
    assert boot(as_member, image, min_count=2, max_count=2) == 403
    assert boot(as_member, image, min_count=1, max_count=2) == 202
    refused = as_member.post(f"{COMPUTE}/servers", json={"server": {"name": "x", "imageRef": image, "flavorRef": "1"}})
    assert refused.status_code == 403
    assert "Quota exceeded for instances" in refused.json["forbidden"]["message"]
    detail = as_admin.get(f"{path}/detail?user_id={as_member.user_id}").json["quota_set"]
    assert detail["instances"] == {"limit": 2, "in_use": 2, "reserved": 0}
    assert as_admin.get(f"{path}/detail?user_id=another").json["quota_set"]["instances"]["in_use"] == 0
    assert as_admin.get(f"{path}/detail").json["quota_set"]["instances"]["in_use"] == 2
    assert as_admin.delete(path).status_code == 202
    assert boot(as_member, image) == 202


def test_a_resize_keeps_to_the_users_limit(
    as_admin: Api, as_member: Api, path: str, make_server: Callable[..., str]
) -> None:
    server_id = make_server()
    assert set_user(as_admin, path, as_member.user_id, ram=256) == 200
    answer = as_member.post(f"{COMPUTE}/servers/{server_id}/action", json={"resize": {"flavorRef": "2"}})
    assert answer.status_code == 403
    assert "Quota exceeded for ram" in answer.json["forbidden"]["message"]
    assert as_member.get(f"{COMPUTE}/limits").json["limits"]["absolute"]["totalRAMUsed"] == 128


def test_key_pairs_keep_to_the_users_limit(as_admin: Api, as_member: Api, path: str) -> None:
    assert set_user(as_admin, path, as_member.user_id, key_pairs=0) == 200
    assert as_member.post(f"{COMPUTE}/os-keypairs", json={"keypair": {"name": "k"}}).status_code == 403
