"""Application credentials: made, used, limited by roles, time and access rules."""

from typing import Any

import pytest

from app.db.database import Database
from identity_api import epoch
from identity_api.models import ApplicationCredential
from tests.api.conftest import Api
from tests.api.identity_fixtures import V3, authenticate, bearer, by_credential, by_token, make, role_id


def path_of(api: Api) -> str:
    return f"{V3}/users/{api.user_id}/application_credentials"


def create(api: Api, name: str = "ci", **fields: Any) -> dict[str, Any]:
    answer = api.post(path_of(api), json={"application_credential": {"name": name, **fields}})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json["application_credential"]
    return made


def use(api: Api, made: dict[str, Any]) -> Api:
    return bearer(api, authenticate(api, by_credential(made["id"], made["secret"])))


def test_the_secret_is_shown_once(as_member: Api) -> None:
    made = create(as_member, description="for CI")
    assert len(made["secret"]) > 40
    assert made["project_id"] == as_member.project_id
    assert made["user_id"] == as_member.user_id
    assert made["unrestricted"] is False
    assert made["expires_at"] is None
    assert {role["name"] for role in made["roles"]} == {"member", "reader"}
    shown = as_member.get(f"{path_of(as_member)}/{made['id']}").json["application_credential"]
    (listed,) = as_member.get(path_of(as_member), query_string={"name": "ci"}).json["application_credentials"]
    assert shown == listed == {key: value for key, value in made.items() if key != "secret"}


@pytest.mark.parametrize("secret", [None, "chosen by me"])
def test_it_logs_in_by_id_and_by_name_with_its_user(as_member: Api, secret: str | None) -> None:
    made = create(as_member, secret=secret)
    for user in ({"id": as_member.user_id}, {"name": "demo", "domain": {"id": "default"}}):
        proof = {"name": "ci", "secret": made["secret"], "user": user}
        identity = {"methods": ["application_credential"], "application_credential": proof}
        assert authenticate(as_member, identity).status_code == 201
    answer = authenticate(as_member, by_credential(made["id"], made["secret"]))
    token = answer.json["token"]
    assert token["methods"] == ["application_credential"]
    assert token["application_credential"] == {"id": made["id"], "name": "ci", "restricted": True}
    assert token["project"]["id"] == as_member.project_id
    assert "catalog" in token
    for id_, wrong in ((made["id"], "wrong"), ("a" * 32, made["secret"])):
        assert authenticate(as_member, by_credential(id_, wrong)).status_code == 401


def test_it_cannot_be_given_a_scope_or_change_it(as_admin: Api) -> None:
    made = create(as_admin)
    scope = {"project": {"id": as_admin.project_id}}
    identity = by_credential(made["id"], made["secret"])
    assert authenticate(as_admin, identity, scope).status_code == 401
    assert authenticate(as_admin, identity, "unscoped").status_code == 401
    token = use(as_admin, made).token
    assert authenticate(as_admin, by_token(token), scope).status_code == 401
    assert authenticate(as_admin, by_token(token), {"system": {"all": True}}).status_code == 401
    again = authenticate(as_admin, by_token(token)).json["token"]
    assert again["application_credential"]["id"] == made["id"]
    assert again["project"]["id"] == as_admin.project_id


def test_it_holds_a_subset_of_the_roles_and_what_they_imply(as_admin: Api, as_member: Api) -> None:
    made = create(as_admin, roles=[{"name": "member"}])
    token = authenticate(as_admin, by_credential(made["id"], made["secret"])).json["token"]
    assert {role["name"] for role in token["roles"]} == {"member", "reader"}
    assert use(as_admin, made).get(f"{V3}/users").status_code == 403
    body = {"application_credential": {"name": "more", "roles": [{"id": role_id(as_admin, "admin")}]}}
    assert as_member.post(path_of(as_member), json=body).status_code == 400


def test_only_an_unrestricted_one_makes_and_deletes_others(as_member: Api) -> None:
    restricted = use(as_member, create(as_member))
    body = {"application_credential": {"name": "more"}}
    assert restricted.post(path_of(as_member), json=body).status_code == 403
    assert restricted.get(path_of(as_member)).status_code == 200
    other = create(as_member, "other")
    assert restricted.delete(f"{path_of(as_member)}/{other['id']}").status_code == 403
    unrestricted = use(as_member, create(as_member, "free", unrestricted=True))
    assert unrestricted.delete(f"{path_of(as_member)}/{other['id']}").status_code == 204
    assert create(unrestricted, "more")["roles"]


def test_one_made_by_another_gets_no_more_roles_than_it_has(as_admin: Api) -> None:
    member = use(as_admin, create(as_admin, roles=[{"name": "member"}], unrestricted=True))
    assert {role["name"] for role in create(member, "next")["roles"]} == {"member", "reader"}
    body = {"application_credential": {"name": "more", "roles": [{"name": "admin"}]}}
    assert member.post(path_of(member), json=body).status_code == 400


def test_nobody_makes_one_for_somebody_else(as_admin: Api, as_member: Api) -> None:
    body = {"application_credential": {"name": "x"}}
    assert as_admin.post(path_of(as_member), json=body).status_code == 403
    assert as_member.get(path_of(as_admin)).status_code == 403
    made = create(as_member)
    assert as_admin.get(f"{path_of(as_member)}/{made['id']}").status_code == 200
    assert as_admin.get(f"{path_of(as_admin)}/{made['id']}").status_code == 404
    assert as_admin.delete(f"{path_of(as_member)}/{made['id']}").status_code == 204


def test_a_name_is_taken_once_for_each_user(as_member: Api, as_admin: Api) -> None:
    create(as_member)
    assert as_member.post(path_of(as_member), json={"application_credential": {"name": "ci"}}).status_code == 409
    create(as_admin)


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
    assert as_member.post(path_of(as_member), json={"application_credential": fields}).status_code == 400


RULES = [
    {"service": "compute", "method": "GET", "path": "/v2.1/flavors"},
    {"service": "compute", "method": "GET", "path": "/v2.1/servers/*"},
    {"service": "image", "method": "GET", "path": "/v2/**"},
    {"service": "block-storage", "method": "GET", "path": "/v3/{project_id}/limits"},
    {"service": "identity", "method": "GET", "path": "/v3/auth/projects"},
]


def test_access_rules_are_enforced_on_every_service(as_member: Api) -> None:
    ci = use(as_member, create(as_member, access_rules=RULES))
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
    """The openstack command sends one unless rules are given."""
    made = create(as_member, access_rules=[])
    ci = use(as_member, made)
    assert ci.get("/compute/v2.1/flavors").status_code == 200
    assert as_member.get(f"{V3}/auth/tokens", headers={"X-Subject-Token": ci.token or ""}).status_code == 200
    with database.transaction() as session:  # as they were stored before
        session.get_one(ApplicationCredential, made["id"]).access_rule_ids = []
        epoch.bump(session)
    assert use(as_member, made).get("/compute/v2.1/flavors").status_code == 200


def test_a_token_with_access_rules_is_hidden_from_who_does_not_know_them(as_member: Api, as_admin: Api) -> None:
    ci = use(as_member, create(as_member, access_rules=RULES))
    headers = {"X-Subject-Token": ci.token or ""}
    assert as_admin.get(f"{V3}/auth/tokens", headers=headers).status_code == 404
    headers["OpenStack-Identity-Access-Rules"] = "1.0"
    token = as_admin.get(f"{V3}/auth/tokens", headers=headers).json["token"]
    assert len(token["application_credential"]["access_rules"]) == len(RULES)


def test_access_rules_are_shared_and_go_only_when_unused(as_member: Api, as_admin: Api) -> None:
    rules = f"{V3}/users/{as_member.user_id}/access_rules"
    first = create(as_member, "one", access_rules=RULES[:1])
    (rule,) = first["access_rules"]
    second = create(as_member, "two", access_rules=[{"id": rule["id"]}])
    third = create(as_member, "three", access_rules=RULES[:1])
    assert second["access_rules"] == third["access_rules"] == [rule]
    (listed,) = as_member.get(rules).json["access_rules"]
    assert {key: listed[key] for key in rule} == rule
    assert as_member.get(f"{rules}/{rule['id']}").json["access_rule"] == listed
    assert as_admin.get(f"{rules}/{rule['id']}").status_code == 403
    assert as_member.delete(f"{rules}/{rule['id']}").status_code == 403
    for made in (first, second, third):
        assert as_member.delete(f"{path_of(as_member)}/{made['id']}").status_code == 204
    assert as_member.delete(f"{rules}/{rule['id']}").status_code == 204
    assert as_member.get(f"{rules}/{rule['id']}").status_code == 404


def test_it_needs_a_token_for_a_project(as_admin: Api) -> None:
    system = bearer(as_admin, authenticate(as_admin, by_token(as_admin.token), {"system": {"all": True}}))
    answer = system.post(path_of(as_admin), json={"application_credential": {"name": "x"}})
    assert answer.status_code == 400


def test_it_goes_with_its_user_and_project(as_admin: Api) -> None:
    project = make(as_admin, "project")
    assert (
        as_admin.put(
            f"{V3}/projects/{project['id']}/users/{as_admin.user_id}/roles/{role_id(as_admin, 'member')}"
        ).status_code
        == 204
    )
    there = bearer(as_admin, authenticate(as_admin, by_token(as_admin.token), {"project": {"id": project["id"]}}))
    made = create(there)
    assert as_admin.delete(f"{V3}/projects/{project['id']}").status_code == 204
    assert as_admin.get(f"{path_of(as_admin)}/{made['id']}").status_code == 404
