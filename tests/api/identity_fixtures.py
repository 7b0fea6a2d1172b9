"""What the tests of identity have in common: making things, and logging in in every way there is."""

from typing import Any
from uuid import uuid4

from werkzeug.test import TestResponse

from tests.api.conftest import Api

V3 = "/identity/v3"


def make(api: Api, kind: str, **fields: Any) -> dict[str, Any]:
    """A new project, user, group, role, domain, service, endpoint or region, as the API shows it."""
    if kind != "endpoint" and kind != "region":
        fields.setdefault("name", f"{kind}-{uuid4().hex[:8]}")
    answer = api.post(f"{V3}/{kind}s", json={kind: fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json[kind]
    return made


def role_id(api: Api, name: str) -> str:
    (role,) = api.get(f"{V3}/roles", query_string={"name": name}).json["roles"]
    found: str = role["id"]
    return found


def give(api: Api, place: str, role: str) -> None:
    """`give(as_admin, f"projects/{p}/users/{u}", "member")`."""
    answer = api.put(f"{V3}/{place}/roles/{role_id(api, role)}")
    assert answer.status_code == 204, answer.text


def take(api: Api, place: str, role: str) -> None:
    answer = api.delete(f"{V3}/{place}/roles/{role_id(api, role)}")
    assert answer.status_code == 204, answer.text


def by_password(user_id: str, password: str) -> dict[str, Any]:
    return {"methods": ["password"], "password": {"user": {"id": user_id, "password": password}}}


def by_token(token: str | None) -> dict[str, Any]:
    return {"methods": ["token"], "token": {"id": token}}


def by_credential(id_: str, secret: str) -> dict[str, Any]:
    return {"methods": ["application_credential"], "application_credential": {"id": id_, "secret": secret}}


def authenticate(client: Api, identity: dict[str, Any], scope: Any = None, query: str = "") -> TestResponse:
    auth = {"identity": identity} if scope is None else {"identity": identity, "scope": scope}
    return client.post(f"{V3}/auth/tokens{query}", json={"auth": auth})


def bearer(client: Api, answer: TestResponse) -> Api:
    """Who comes with the token of this answer."""
    assert answer.status_code == 201, answer.text
    token = answer.json["token"]
    return Api(
        client.client,
        answer.headers["X-Subject-Token"],
        token.get("project", {}).get("id", ""),
        token["user"]["id"],
    )


def member_of(as_admin: Api, project_id: str, role: str = "member", **fields: Any) -> tuple[str, str]:
    """A new user with a role in the project: id and password."""
    user = make(as_admin, "user", password="letmein", **fields)
    give(as_admin, f"projects/{project_id}/users/{user['id']}", role)
    return user["id"], "letmein"


def new_bearer(as_admin: Api, client: Api, project_id: str, role: str = "member") -> Api:
    """A new user with a role in the project, logged in there."""
    user_id, password = member_of(as_admin, project_id, role)
    scope = {"project": {"id": project_id}}
    return bearer(client, authenticate(client, by_password(user_id, password), scope))


def works(api: Api) -> bool:
    """Whether the token is good on every API."""
    paths = (f"{V3}/auth/projects", "/image/v2/images", "/compute/v2.1/flavors", "/network/v2.0/networks")
    answers = {api.get(path).status_code for path in paths}
    assert answers <= {200} or answers == {401}, answers
    return answers == {200}
