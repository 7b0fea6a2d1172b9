"""Services, endpoints, regions, limits and stored credentials."""

import json
from typing import Any

import pytest

from tests.api.conftest import Api
from tests.api.identity_fixtures import V3, api_with_token, authenticate, create, credential_auth

URL = "https://swift.example.org/v1"


def test_services_are_deleted_with_their_endpoints(as_admin: Api) -> None:
    created = create(as_admin, "service", name="swift", type="object-store", description="objects", vendor="x")
    path = f"{V3}/services/{created['id']}"
    assert created["enabled"] is True
    assert created["vendor"] == "x"
    assert as_admin.get(path).json["service"] == created
    assert as_admin.get(f"{V3}/services?type=object-store").json["services"] == [created]
    assert as_admin.get(f"{V3}/services?name=nothing").json["services"] == []
    changed = as_admin.patch(path, json={"service": {"name": "ceph", "enabled": False}}).json["service"]
    assert changed == {**created, "name": "ceph", "enabled": False}
    endpoint = create(as_admin, "endpoint", service_id=created["id"], interface="public", url=URL)
    assert as_admin.delete(path).status_code == 204
    assert as_admin.get(path).status_code == 404
    assert as_admin.get(f"{V3}/endpoints/{endpoint['id']}").status_code == 404


def test_default_endpoints_follow_the_request_host(as_admin: Api) -> None:
    (service,) = as_admin.get(f"{V3}/services?type=image").json["services"]
    (endpoint,) = as_admin.get(f"{V3}/endpoints?service_id={service['id']}&interface=public").json["endpoints"]
    path = f"{V3}/endpoints/{endpoint['id']}"
    assert endpoint["url"] == "http://localhost/image"
    elsewhere = as_admin.get(path, base_url="https://cloud.example.org").json["endpoint"]
    assert elsewhere["url"] == "https://cloud.example.org/image"
    as_admin.patch(path, json={"endpoint": {"url": "https://images.example.org"}})
    elsewhere = as_admin.get(path, base_url="https://cloud.example.org").json["endpoint"]
    assert elsewhere["url"] == "https://images.example.org"
    catalog = as_admin.get(f"{V3}/auth/catalog").json["catalog"]
    urls = {
        each["interface"]: each["url"] for entry in catalog for each in entry["endpoints"] if entry["type"] == "image"
    }
    assert urls["public"] == "https://images.example.org"
    assert urls["admin"] == "http://localhost/image"


def test_disabled_services_and_endpoints_leave_the_catalog(as_admin: Api) -> None:
    service = create(as_admin, "service", type="object-store")
    endpoint = create(as_admin, "endpoint", service_id=service["id"], interface="public", url=URL)

    def types() -> set[str]:
        return {entry["type"] for entry in as_admin.get(f"{V3}/auth/catalog").json["catalog"]}

    assert "object-store" in types()
    as_admin.patch(f"{V3}/endpoints/{endpoint['id']}", json={"endpoint": {"enabled": False}})
    assert "object-store" not in types()
    as_admin.patch(f"{V3}/endpoints/{endpoint['id']}", json={"endpoint": {"enabled": True}})
    as_admin.patch(f"{V3}/services/{service['id']}", json={"service": {"enabled": False}})
    assert "object-store" not in types()


@pytest.mark.parametrize(
    "change",
    [
        {"interface": "private"},
        {"interface": None},
        {"url": "no url"},
        {"url": "/image"},
        {"url": 5},
        {"service_id": "f" * 32},
        {"region_id": "nowhere"},
        {"enabled": "yes"},
    ],
)
def test_invalid_endpoints_are_a_400(as_admin: Api, change: dict[str, Any]) -> None:
    service = create(as_admin, "service", type="object-store")
    fields = {"service_id": service["id"], "interface": "public", "url": URL}
    endpoint = create(as_admin, "endpoint", **fields)
    assert as_admin.post(f"{V3}/endpoints", json={"endpoint": {**fields, **change}}).status_code == 400
    assert as_admin.patch(f"{V3}/endpoints/{endpoint['id']}", json={"endpoint": change}).status_code == 400


def test_regions_form_a_tree_and_cannot_be_deleted_in_use(as_admin: Api) -> None:
    two = create(as_admin, "region", id="Two", description="second")
    three = create(as_admin, "region", parent_region_id="Two")
    assert two == {
        "id": "Two",
        "description": "second",
        "parent_region_id": None,
        "links": {"self": f"http://localhost{V3}/regions/Two"},
    }
    assert as_admin.post(f"{V3}/regions", json={"region": {"id": "Two"}}).status_code == 409
    assert as_admin.put(f"{V3}/regions/Four", json={"region": {}}).status_code == 201
    assert as_admin.put(f"{V3}/regions/Four", json={"region": {"id": "Five"}}).status_code == 400
    assert as_admin.post(f"{V3}/regions", json={"region": {"parent_region_id": "Nine"}}).status_code == 404
    circle = {"region": {"parent_region_id": three["id"]}}
    assert as_admin.patch(f"{V3}/regions/Two", json=circle).status_code == 400
    found = as_admin.get(f"{V3}/regions?parent_region_id=Two").json["regions"]
    assert [region["id"] for region in found] == [three["id"]]
    service = create(as_admin, "service", type="object-store")
    endpoint = create(
        as_admin, "endpoint", service_id=service["id"], interface="public", url=URL, region_id=three["id"]
    )
    assert as_admin.delete(f"{V3}/regions/Two").status_code == 403
    assert as_admin.delete(f"{V3}/endpoints/{endpoint['id']}").status_code == 204
    assert as_admin.delete(f"{V3}/regions/Two").status_code == 204
    assert as_admin.get(f"{V3}/regions/{three['id']}").status_code == 404


def test_members_read_regions_but_not_services_and_endpoints(as_member: Api) -> None:
    assert as_member.get(f"{V3}/regions/RegionOne").status_code == 200
    for path in ("services", "endpoints"):
        assert as_member.get(f"{V3}/{path}").status_code == 403
        assert as_member.post(f"{V3}/{path}", json={path[:-1]: {}}).status_code == 403


@pytest.fixture
def service_id(as_admin: Api) -> str:
    found: str = create(as_admin, "service", type="gpu")["id"]
    return found


def test_registered_limits_and_project_limits(as_admin: Api, as_member: Api, service_id: str) -> None:
    of = {"service_id": service_id, "resource_name": "gpus"}
    response = as_admin.post(f"{V3}/registered_limits", json={"registered_limits": [{**of, "default_limit": 10}]})
    assert response.status_code == 201
    (registered,) = response.json["registered_limits"]
    again = as_admin.post(f"{V3}/registered_limits", json={"registered_limits": [{**of, "default_limit": 10}]})
    assert again.status_code == 409
    body = {"limits": [{**of, "project_id": as_member.project_id, "resource_limit": 5}]}
    (limit,) = as_admin.post(f"{V3}/limits", json=body).json["limits"]
    assert as_admin.post(f"{V3}/limits", json=body).status_code == 409
    assert as_member.get(f"{V3}/limits").json["limits"] == [limit]
    assert as_member.get(f"{V3}/limits/{limit['id']}").json["limit"] == limit
    assert as_member.get(f"{V3}/registered_limits?resource_name=gpus").json["registered_limits"] == [registered]
    assert as_member.get(f"{V3}/limits/model").json["model"]["name"] == "flat"
    assert as_member.patch(f"{V3}/limits/{limit['id']}", json={"limit": {"resource_limit": 9}}).status_code == 403
    changed = as_admin.patch(f"{V3}/limits/{limit['id']}", json={"limit": {"resource_limit": 7}}).json["limit"]
    assert changed == {**limit, "resource_limit": 7}
    path = f"{V3}/registered_limits/{registered['id']}"
    assert as_admin.patch(path, json={"registered_limit": {"default_limit": 20}}).status_code == 200
    assert as_admin.patch(path, json={"registered_limit": {"resource_name": "x"}}).status_code == 403
    assert as_admin.delete(path).status_code == 403
    assert as_admin.delete(f"{V3}/services/{service_id}").status_code == 403
    assert as_admin.delete(f"{V3}/limits/{limit['id']}").status_code == 204
    assert as_admin.delete(path).status_code == 204


def test_limits_of_other_projects_are_hidden(as_admin: Api, as_member: Api, service_id: str) -> None:
    of = {"service_id": service_id, "resource_name": "gpus"}
    as_admin.post(f"{V3}/registered_limits", json={"registered_limits": [{**of, "default_limit": 10}]})
    body = {"limits": [{**of, "project_id": as_admin.project_id, "resource_limit": 5}]}
    (limit,) = as_admin.post(f"{V3}/limits", json=body).json["limits"]
    assert as_member.get(f"{V3}/limits").json["limits"] == []
    assert as_member.get(f"{V3}/limits/{limit['id']}").status_code == 403


def test_invalid_limits_are_refused(as_admin: Api, service_id: str) -> None:
    of = {"service_id": service_id, "resource_name": "gpus"}
    for limit in ({}, {**of}, {**of, "default_limit": "5"}, {**of, "default_limit": -2}, {**of, "nonsense": 1}):
        response = as_admin.post(f"{V3}/registered_limits", json={"registered_limits": [limit]})
        assert response.status_code == 400, limit
    assert as_admin.post(f"{V3}/registered_limits", json={"registered_limits": []}).status_code == 400
    body = {"limits": [{**of, "project_id": as_admin.project_id, "resource_limit": 5}]}
    assert as_admin.post(f"{V3}/limits", json=body).status_code == 403


def test_credentials_are_stored_encrypted(as_member: Api, as_admin: Api, settings: Any) -> None:
    body = {"credential": {"type": "cert", "blob": "very secret", "project_id": as_member.project_id}}
    created = as_member.post(f"{V3}/credentials", json=body).json["credential"]
    assert created["user_id"] == as_member.user_id
    path = f"{V3}/credentials/{created['id']}"
    assert as_member.get(path).json["credential"] == created
    assert as_member.get(f"{V3}/credentials?type=cert").json["credentials"] == [created]
    assert as_admin.get(f"{V3}/credentials?user_id={as_member.user_id}").json["credentials"] == [created]
    assert b"very secret" not in b"".join(each.read_bytes() for each in settings.state.rglob("sixstack.db*"))
    assert as_member.patch(path, json={"credential": {"user_id": as_admin.user_id}}).status_code == 400
    changed = as_member.patch(path, json={"credential": {"blob": "new"}}).json["credential"]
    assert changed == {**created, "blob": "new"}
    foreign = {"credential": {"type": "cert", "blob": "x", "user_id": as_admin.user_id}}
    assert as_member.post(f"{V3}/credentials", json=foreign).status_code == 403
    assert as_member.delete(path).status_code == 204
    assert as_member.get(path).status_code == 403
    assert as_admin.get(path).status_code == 404


def test_ec2_key_pairs_are_listed_as_credentials(as_member: Api, as_admin: Api) -> None:
    ec2 = f"{V3}/users/{as_member.user_id}/credentials/OS-EC2"
    created = as_member.post(ec2, json={"tenant_id": as_member.project_id}).json["credential"]
    assert as_member.get(f"{ec2}/{created['access']}").json["credential"] == created
    assert as_member.get(ec2).json["credentials"] == [created]
    (kept,) = as_member.get(f"{V3}/credentials?type=ec2").json["credentials"]
    assert json.loads(kept["blob"])["secret"] == created["secret"]
    assert as_member.post(f"{V3}/credentials", json={"credential": {"type": "ec2", "blob": "{}"}}).status_code == 400
    assert as_member.get(f"{V3}/users/{as_admin.user_id}/credentials/OS-EC2").status_code == 403
    assert as_member.delete(f"{ec2}/{created['access']}").status_code == 204
    assert as_member.get(f"{ec2}/{created['access']}").status_code == 404


def test_application_credentials_see_their_project_only(as_member: Api) -> None:
    project = {"project_id": as_member.project_id}
    for fields in (project, {}):
        as_member.post(f"{V3}/credentials", json={"credential": {"type": "x", "blob": "y", **fields}})
    path = f"{V3}/users/{as_member.user_id}/application_credentials"
    created = as_member.post(path, json={"application_credential": {"name": "ci"}}).json["application_credential"]
    ci = api_with_token(as_member, authenticate(as_member, credential_auth(created["id"], created["secret"])))
    (seen,) = ci.get(f"{V3}/credentials").json["credentials"]
    assert seen["project_id"] == as_member.project_id
    assert ci.delete(f"{V3}/credentials/{seen['id']}").status_code == 403
    ec2 = f"{V3}/users/{as_member.user_id}/credentials/OS-EC2"
    assert ci.post(ec2, json={"tenant_id": as_member.project_id}).status_code == 403
