"""Hostile and malformed requests are rejected with a 4xx, never a 500, and change nothing."""

from typing import Any

import pytest

from tests.api.conftest import Api
from tests.api.identity_fixtures import V3, authenticate, create, is_accepted, password_auth

NESTED: Any = {}
for _ in range(200):
    NESTED = {"x": NESTED}

VALUES: list[Any] = [
    "a\0b",
    "x" * 100_000,
    "' OR 1=1 --",
    "../../etc/passwd",
    "\u202e\ud83d\ude00",
    10**30,
    -1,
    1.5,
    True,
    [],
    [None],
    {},
    NESTED,
]


@pytest.mark.parametrize("kind", ["user", "project", "group", "role", "domain", "service", "region", "endpoint"])
def test_arbitrary_field_values_are_a_4xx(as_admin: Api, kind: str) -> None:
    names = ["name", "description", "domain_id", "enabled", "options", "type", "id", "parent_id", "url", "surprise"]
    for name in names:
        for value in VALUES:
            body = {kind: {"name": f"{name}-x", "type": "y", name: value}}
            response = as_admin.post(f"{V3}/{kind}s", json=body)
            assert response.status_code in (201, 400, 403, 404, 409), (name, str(value)[:40], response.text[:200])
    assert is_accepted(as_admin)


@pytest.mark.parametrize(
    "path", ["users", "projects", "groups", "roles", "domains", "services", "endpoints", "regions"]
)
def test_arbitrary_filters_and_ids_are_no_500(as_admin: Api, path: str) -> None:
    for value in ("a\0b", "x" * 5000, "'", "%", "_", "\u202e", "[]"):
        for name in ("name", "name__contains", "domain_id", "marker", "limit", "enabled", "parent_id", "is_domain"):
            response = as_admin.get(f"{V3}/{path}", query_string={name: value})
            assert response.status_code in (200, 400, 404), (name, value[:20], response.text[:200])
        assert as_admin.get(f"{V3}/{path}/{value}").status_code in (400, 404)


def test_oversized_bodies_are_refused(client: Api) -> None:
    response = client.post(f"{V3}/auth/tokens", data=b"x" * 200_000, headers={"Content-Type": "application/json"})
    assert response.status_code == 413


@pytest.mark.parametrize("header", ["X-Auth-Token", "X-Subject-Token"])
@pytest.mark.parametrize("token", ["\xff\xfe", "gAAAAA" + "A" * 10_000, "a b", "💥".encode().decode("latin-1")])
def test_arbitrary_token_bytes_are_refused(as_admin: Api, header: str, token: str) -> None:
    headers = {"X-Auth-Token": as_admin.token or "", "X-Subject-Token": as_admin.token or "", header: token}
    response = Api(as_admin.client).get(f"{V3}/auth/tokens", headers=headers)
    assert response.status_code == (401 if header == "X-Auth-Token" else 404)


def test_a_token_modified_anywhere_is_refused(as_member: Api) -> None:
    token = as_member.token or ""
    for position in range(0, len(token), 7):
        changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
        if changed != token:
            assert Api(as_member.client, changed).get(f"{V3}/auth/projects").status_code == 401


def test_internal_fields_cannot_be_set(as_admin: Api, client: Api) -> None:
    user = create(
        as_admin,
        "user",
        password="letmein",
        generation=5,
        failed_logins=-100,
        links={"self": "evil"},
        id="a" * 32,
        roles=["admin"],
        is_admin=True,
    )
    assert user["id"] != "a" * 32
    assert "evil" not in user["links"]["self"]
    token = authenticate(client, password_auth(user["id"], "letmein")).json["token"]
    assert "roles" not in token


def test_a_member_cannot_escalate_privileges(as_member: Api, as_admin: Api) -> None:
    admin = as_admin.get(f"{V3}/roles?name=admin").json["roles"][0]["id"]
    user, project = as_member.user_id, as_member.project_id
    tries: list[tuple[str, str, Any]] = [
        ("PUT", f"projects/{project}/users/{user}/roles/{admin}", None),
        ("PUT", f"system/users/{user}/roles/{admin}", None),
        ("PUT", f"domains/default/users/{user}/roles/{admin}", None),
        ("PUT", f"OS-INHERIT/domains/default/users/{user}/roles/{admin}/inherited_to_projects", None),
        ("PUT", f"roles/{admin}/implies/{admin}", None),
        ("PATCH", f"roles/{admin}", {"role": {"name": "x"}}),
        ("PATCH", f"users/{user}", {"user": {"default_project_id": as_admin.project_id}}),
        ("PATCH", f"users/{as_admin.user_id}", {"user": {"password": "mine"}}),
        ("PATCH", f"projects/{project}", {"project": {"tags": []}}),
        ("POST", f"users/{as_admin.user_id}/application_credentials", {"application_credential": {"name": "x"}}),
        ("POST", f"users/{as_admin.user_id}/credentials/OS-EC2", {"tenant_id": as_admin.project_id}),
        ("POST", "endpoints", {"endpoint": {}}),
        ("PATCH", "regions/RegionOne", {"region": {}}),
        ("POST", "limits", {"limits": []}),
        ("GET", "role_assignments", None),
        ("GET", f"users/{as_admin.user_id}/application_credentials", None),
    ]
    for method, path, body in tries:
        response = as_member.request(method, f"{V3}/{path}", json=body)
        assert response.status_code == 403, (method, path, response.status_code)
