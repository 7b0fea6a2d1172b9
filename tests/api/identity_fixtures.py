"""Helpers for identity tests: create resources, assign roles, authenticate by each method."""

from typing import Any
from uuid import uuid4

from werkzeug.test import TestResponse

from tests.api.conftest import Api

V3 = "/identity/v3"


def create(api: Api, kind: str, **fields: Any) -> dict[str, Any]:
    """Create a project, user, group, role, domain, service, endpoint or region; returns the response's resource."""
    if kind != "endpoint" and kind != "region":
        fields.setdefault("name", f"{kind}-{uuid4().hex[:8]}")
    response = api.post(f"{V3}/{kind}s", json={kind: fields})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json[kind]
    return created


def find_role_id(api: Api, name: str) -> str:
    (role,) = api.get(f"{V3}/roles", query_string={"name": name}).json["roles"]
    role_id: str = role["id"]
    return role_id


def assign_role(api: Api, place: str, role: str) -> None:
    """For example `assign_role(as_admin, f"projects/{p}/users/{u}", "member")`."""
    response = api.put(f"{V3}/{place}/roles/{find_role_id(api, role)}")
    assert response.status_code == 204, response.text


def revoke_role(api: Api, place: str, role: str) -> None:
    response = api.delete(f"{V3}/{place}/roles/{find_role_id(api, role)}")
    assert response.status_code == 204, response.text


def password_auth(user_id: str, password: str) -> dict[str, Any]:
    return {"methods": ["password"], "password": {"user": {"id": user_id, "password": password}}}


def token_auth(token: str | None) -> dict[str, Any]:
    return {"methods": ["token"], "token": {"id": token}}


def credential_auth(id_: str, secret: str) -> dict[str, Any]:
    return {"methods": ["application_credential"], "application_credential": {"id": id_, "secret": secret}}


def authenticate(client: Api, identity: dict[str, Any], scope: Any = None, query: str = "") -> TestResponse:
    auth = {"identity": identity} if scope is None else {"identity": identity, "scope": scope}
    return client.post(f"{V3}/auth/tokens{query}", json={"auth": auth})


def api_with_token(client: Api, response: TestResponse) -> Api:
    """API client with the token of this response."""
    assert response.status_code == 201, response.text
    token = response.json["token"]
    return Api(
        client.client,
        response.headers["X-Subject-Token"],
        token.get("project", {}).get("id", ""),
        token["user"]["id"],
    )


def create_member(as_admin: Api, project_id: str, role: str = "member", **fields: Any) -> tuple[str, str]:
    """Create a user with a role in the project; returns id and password."""
    user = create(as_admin, "user", password="letmein", **fields)
    assign_role(as_admin, f"projects/{project_id}/users/{user['id']}", role)
    return user["id"], "letmein"


def create_user_api(as_admin: Api, client: Api, project_id: str, role: str = "member") -> Api:
    """Create a user with a role in the project; returns an API client with its token."""
    user_id, password = create_member(as_admin, project_id, role)
    scope = {"project": {"id": project_id}}
    return api_with_token(client, authenticate(client, password_auth(user_id, password), scope))


def is_accepted(api: Api) -> bool:
    """Whether every API accepts the token; they must agree."""
    paths = (f"{V3}/auth/projects", "/image/v2/images", "/compute/v2.1/flavors", "/network/v2.0/networks")
    statuses = {api.get(path).status_code for path in paths}
    assert statuses <= {200} or statuses == {401}, statuses
    return statuses == {200}
