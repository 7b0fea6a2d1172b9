"""Application credentials: creation, log-in, and limits by roles, expiry and access rules."""

from typing import Any

import pytest

from app.db.database import Database
from identity_api import epoch
from identity_api.models import ApplicationCredential
from tests.api.conftest import Api
from tests.api.identity_fixtures import (
    V3,
    api_with_token,
    authenticate,
    create,
    credential_auth,
    find_role_id,
    token_auth,
)


def credentials_path(api: Api) -> str:
    return f"{V3}/users/{api.user_id}/application_credentials"


def create_credential(api: Api, name: str = "ci", **fields: Any) -> dict[str, Any]:
    response = api.post(credentials_path(api), json={"application_credential": {"name": name, **fields}})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json["application_credential"]
    return created


def log_in(api: Api, created: dict[str, Any]) -> Api:
    return api_with_token(api, authenticate(api, credential_auth(created["id"], created["secret"])))


def test_the_secret_is_shown_once(as_member: Api) -> None:
    created = create_credential(as_member, description="for CI")
    assert len(created["secret"]) > 40
    assert created["project_id"] == as_member.project_id
    assert created["user_id"] == as_member.user_id
    assert created["unrestricted"] is False
    assert created["expires_at"] is None
    assert {role["name"] for role in created["roles"]} == {"member", "reader"}
    shown = as_member.get(f"{credentials_path(as_member)}/{created['id']}").json["application_credential"]
    (listed,) = as_member.get(credentials_path(as_member), query_string={"name": "ci"}).json["application_credentials"]
    assert shown == listed == {key: value for key, value in created.items() if key != "secret"}


@pytest.mark.parametrize("secret", [None, "chosen by me"])
def test_log_in_by_credential_id_and_by_name_and_user(as_member: Api, secret: str | None) -> None:
    created = create_credential(as_member, secret=secret)
    for user in ({"id": as_member.user_id}, {"name": "demo", "domain": {"id": "default"}}):
        proof = {"name": "ci", "secret": created["secret"], "user": user}
        identity = {"methods": ["application_credential"], "application_credential": proof}
        assert authenticate(as_member, identity).status_code == 201
    response = authenticate(as_member, credential_auth(created["id"], created["secret"]))
    token = response.json["token"]
    assert token["methods"] == ["application_credential"]
    assert token["application_credential"] == {"id": created["id"], "name": "ci", "restricted": True}
    assert token["project"]["id"] == as_member.project_id
    assert "catalog" in token
    for id_, wrong in ((created["id"], "wrong"), ("a" * 32, created["secret"])):
        assert authenticate(as_member, credential_auth(id_, wrong)).status_code == 401


def test_the_scope_of_a_credential_is_fixed(as_admin: Api) -> None:
    created = create_credential(as_admin)
    scope = {"project": {"id": as_admin.project_id}}
    identity = credential_auth(created["id"], created["secret"])
    assert authenticate(as_admin, identity, scope).status_code == 401
    assert authenticate(as_admin, identity, "unscoped").status_code == 401
    token = log_in(as_admin, created).token
    assert authenticate(as_admin, token_auth(token), scope).status_code == 401
    assert authenticate(as_admin, token_auth(token), {"system": {"all": True}}).status_code == 401
    again = authenticate(as_admin, token_auth(token)).json["token"]
    assert again["application_credential"]["id"] == created["id"]
    assert again["project"]["id"] == as_admin.project_id


def test_a_credential_holds_a_subset_of_roles_and_implied_roles(as_admin: Api, as_member: Api) -> None:
    created = create_credential(as_admin, roles=[{"name": "member"}])
    token = authenticate(as_admin, credential_auth(created["id"], created["secret"])).json["token"]
    assert {role["name"] for role in token["roles"]} == {"member", "reader"}
    assert log_in(as_admin, created).get(f"{V3}/users").status_code == 403
    body = {"application_credential": {"name": "more", "roles": [{"id": find_role_id(as_admin, "admin")}]}}
    assert as_member.post(credentials_path(as_member), json=body).status_code == 400


def test_only_unrestricted_credentials_manage_credentials(as_member: Api) -> None:
    restricted = log_in(as_member, create_credential(as_member))
    body = {"application_credential": {"name": "more"}}
    assert restricted.post(credentials_path(as_member), json=body).status_code == 403
    assert restricted.get(credentials_path(as_member)).status_code == 200
    other = create_credential(as_member, "other")
    assert restricted.delete(f"{credentials_path(as_member)}/{other['id']}").status_code == 403
    unrestricted = log_in(as_member, create_credential(as_member, "free", unrestricted=True))
    assert unrestricted.delete(f"{credentials_path(as_member)}/{other['id']}").status_code == 204
    assert create_credential(unrestricted, "more")["roles"]


def test_a_credential_cannot_grant_roles_it_lacks(as_admin: Api) -> None:
    member = log_in(as_admin, create_credential(as_admin, roles=[{"name": "member"}], unrestricted=True))
    assert {role["name"] for role in create_credential(member, "next")["roles"]} == {"member", "reader"}
    body = {"application_credential": {"name": "more", "roles": [{"name": "admin"}]}}
    assert member.post(credentials_path(member), json=body).status_code == 400


def test_credentials_cannot_be_created_for_other_users(as_admin: Api, as_member: Api) -> None:
    body = {"application_credential": {"name": "x"}}
    assert as_admin.post(credentials_path(as_member), json=body).status_code == 403
    assert as_member.get(credentials_path(as_admin)).status_code == 403
    created = create_credential(as_member)
    assert as_admin.get(f"{credentials_path(as_member)}/{created['id']}").status_code == 200
    assert as_admin.get(f"{credentials_path(as_admin)}/{created['id']}").status_code == 404
    assert as_admin.delete(f"{credentials_path(as_member)}/{created['id']}").status_code == 204


def test_credential_names_are_unique_per_user(as_member: Api, as_admin: Api) -> None:
    create_credential(as_member)
    assert (
        as_member.post(credentials_path(as_member), json={"application_credential": {"name": "ci"}}).status_code == 409
    )
    create_credential(as_admin)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": ""},
        {"name": "x" * 256},
        {"name": 5},
        {"name": "x", "expires_at": "tomorrow"},
        {"name": "x", "expires_at": "2001-01-01T00:00:00"},
        {"name": "x", "roles": "admin"},
        {"name": "x", "roles": [{}]},
        {"name": "x", "unrestricted": "yes"},
        {"name": "x", "access_rules": [{"path": "/v2.1/servers"}]},
        {"name": "x", "access_rules": [{"path": "servers", "method": "GET", "service": "compute"}]},
        {"name": "x", "access_rules": [{"path": "/x", "method": "get", "service": "compute"}]},
    ],
)
def test_bad_input_is_a_400(as_member: Api, fields: object) -> None:
    assert as_member.post(credentials_path(as_member), json={"application_credential": fields}).status_code == 400


RULES = [
    {"service": "compute", "method": "GET", "path": "/v2.1/flavors"},
    {"service": "compute", "method": "GET", "path": "/v2.1/servers/*"},
    {"service": "image", "method": "GET", "path": "/v2/**"},
    {"service": "block-storage", "method": "GET", "path": "/v3/{project_id}/limits"},
    {"service": "identity", "method": "GET", "path": "/v3/auth/projects"},
]


def test_access_rules_are_enforced_on_every_service(as_member: Api) -> None:
    ci = log_in(as_member, create_credential(as_member, access_rules=RULES))
    assert ci.get("/compute/v2.1/flavors").status_code == 200
    assert ci.get("/compute/v2.1/flavors/detail").status_code == 401
    assert ci.post("/compute/v2.1/servers", json={}).status_code == 401
    assert ci.get("/compute/v2.1/servers/detail").status_code == 200
    assert ci.get("/compute/v2.1/servers/a/ips").status_code == 401
    assert ci.get("/image/v2/images").status_code == 200
    assert ci.get("/image/v2/schemas/image").status_code == 200
    assert ci.delete("/image/v2/images/a").status_code == 401
    assert ci.get("/network/v2.0/networks").status_code == 401
    assert ci.get(f"{V3}/auth/projects").status_code == 200
    assert ci.get(f"{V3}/auth/tokens", headers={"X-Subject-Token": ci.token or ""}).status_code == 401


def test_an_empty_list_of_access_rules_restricts_nothing(as_member: Api, database: Database) -> None:
    """The openstack command sends an empty list unless rules are given."""
    created = create_credential(as_member, access_rules=[])
    ci = log_in(as_member, created)
    assert ci.get("/compute/v2.1/flavors").status_code == 200
    assert as_member.get(f"{V3}/auth/tokens", headers={"X-Subject-Token": ci.token or ""}).status_code == 200
    with database.transaction() as session:  # as stored by earlier versions
        session.get_one(ApplicationCredential, created["id"]).access_rule_ids = []
        epoch.bump(session)
    assert log_in(as_member, created).get("/compute/v2.1/flavors").status_code == 200


def test_tokens_with_access_rules_are_hidden_from_old_clients(as_member: Api, as_admin: Api) -> None:
    ci = log_in(as_member, create_credential(as_member, access_rules=RULES))
    headers = {"X-Subject-Token": ci.token or ""}
    assert as_admin.get(f"{V3}/auth/tokens", headers=headers).status_code == 404
    headers["OpenStack-Identity-Access-Rules"] = "1.0"
    token = as_admin.get(f"{V3}/auth/tokens", headers=headers).json["token"]
    assert len(token["application_credential"]["access_rules"]) == len(RULES)


def test_access_rules_are_shared_and_deleted_only_if_unused(as_member: Api, as_admin: Api) -> None:
    rules = f"{V3}/users/{as_member.user_id}/access_rules"
    first = create_credential(as_member, "one", access_rules=RULES[:1])
    (rule,) = first["access_rules"]
    second = create_credential(as_member, "two", access_rules=[{"id": rule["id"]}])
    third = create_credential(as_member, "three", access_rules=RULES[:1])
    assert second["access_rules"] == third["access_rules"] == [rule]
    (listed,) = as_member.get(rules).json["access_rules"]
    assert {key: listed[key] for key in rule} == rule
    assert as_member.get(f"{rules}/{rule['id']}").json["access_rule"] == listed
    assert as_admin.get(f"{rules}/{rule['id']}").status_code == 403
    assert as_member.delete(f"{rules}/{rule['id']}").status_code == 403
    for created in (first, second, third):
        assert as_member.delete(f"{credentials_path(as_member)}/{created['id']}").status_code == 204
    assert as_member.delete(f"{rules}/{rule['id']}").status_code == 204
    assert as_member.get(f"{rules}/{rule['id']}").status_code == 404


def test_creating_a_credential_needs_a_project_token(as_admin: Api) -> None:
    system = api_with_token(as_admin, authenticate(as_admin, token_auth(as_admin.token), {"system": {"all": True}}))
    response = system.post(credentials_path(as_admin), json={"application_credential": {"name": "x"}})
    assert response.status_code == 400


def test_credentials_are_deleted_with_their_user_and_project(as_admin: Api) -> None:
    project = create(as_admin, "project")
    assert (
        as_admin.put(
            f"{V3}/projects/{project['id']}/users/{as_admin.user_id}/roles/{find_role_id(as_admin, 'member')}"
        ).status_code
        == 204
    )
    there = api_with_token(
        as_admin, authenticate(as_admin, token_auth(as_admin.token), {"project": {"id": project["id"]}})
    )
    created = create_credential(there)
    assert as_admin.delete(f"{V3}/projects/{project['id']}").status_code == 204
    assert as_admin.get(f"{credentials_path(as_admin)}/{created['id']}").status_code == 404
