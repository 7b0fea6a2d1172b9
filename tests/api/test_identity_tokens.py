"""Tokens: authentication methods, scopes, validation and revocation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from app.factory import create_app
from tests.api.conftest import Api, Template
from tests.api.identity_fixtures import (
    V3,
    api_with_token,
    assign_role,
    authenticate,
    create,
    create_member,
    password_auth,
    token_auth,
)

DEFAULT = {"id": "default"}


@pytest.mark.parametrize("path", ["/identity", "/identity/"])
def test_discovery_offers_the_one_version(client: Api, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 300
    (version,) = response.json["versions"]["values"]
    assert version["id"] == "v3.14"
    assert version["status"] == "stable"
    assert version["links"] == [{"rel": "self", "href": "http://localhost/identity/v3/"}]


@pytest.mark.parametrize("path", ["/identity/v3", "/identity/v3/"])
def test_the_version_describes_itself_with_and_without_a_slash(client: Api, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.json["version"]["id"] == "v3.14"


def test_links_follow_the_request_host(client: Api) -> None:
    response = client.get("/identity/v3", base_url="https://cloud.example.org")
    assert response.json["version"]["links"][0]["href"] == "https://cloud.example.org/identity/v3/"


def test_links_start_with_public_url(
    settings: Settings, database: Database, clock: ManualClock, template: Template
) -> None:
    changed = replace(settings, public_url="https://cloud.example.org:8443")
    client = Api(create_app(changed, database=database, clock=clock).test_client())
    token = authenticate(client, named_password_auth(template, "demo")).json["token"]
    urls = {each["url"] for service in token["catalog"] for each in service["endpoints"]}
    assert all(url.startswith("https://cloud.example.org:8443/") for url in urls)
    refused = client.get(f"{V3}/auth/projects")
    assert refused.headers["WWW-Authenticate"] == 'Keystone uri="https://cloud.example.org:8443/identity/v3"'


def named_password_auth(template: Template, name: str, domain: dict[str, str] = DEFAULT) -> dict[str, Any]:
    user = {"name": name, "domain": domain, "password": template.passwords[name]}
    return {"methods": ["password"], "password": {"user": user}}


def test_log_in_by_name_scopes_to_the_default_project(client: Api, template: Template) -> None:
    response = authenticate(client, named_password_auth(template, "demo"))
    assert response.status_code == 201
    assert len(response.headers["X-Subject-Token"]) <= 255
    assert response.headers["Vary"] == "X-Auth-Token"
    token = response.json["token"]
    assert token["methods"] == ["password"]
    assert token["user"]["name"] == "demo"
    assert token["user"]["domain"] == {"id": "default", "name": "Default"}
    assert token["user"]["password_expires_at"] is None
    assert token["project"]["name"] == "demo"
    assert token["project"]["domain"]["id"] == "default"
    assert {role["name"] for role in token["roles"]} == {"member", "reader"}
    assert len(token["audit_ids"]) == 1
    assert token["issued_at"] < token["expires_at"]
    assert "id" not in token


def test_a_domain_may_be_given_by_name(client: Api, template: Template) -> None:
    scope = {"project": {"name": "demo", "domain": {"name": "Default"}}}
    assert authenticate(client, named_password_auth(template, "demo", {"name": "Default"}), scope).status_code == 201


@pytest.mark.parametrize("name", ["default", "DEFAULT"])
def test_names_are_case_insensitive(client: Api, template: Template, name: str) -> None:
    proof = named_password_auth(template, "demo", {"name": name})
    proof["password"]["user"]["name"] = "Demo"
    for scope in ({"project": {"name": "DEMO", "domain": {"name": name}}}, None):
        response = authenticate(client, proof, scope)
        assert response.status_code == 201
        assert response.json["token"]["user"]["name"] == "demo"
        assert response.json["token"]["project"]["name"] == "demo"
    admin = named_password_auth(template, "admin", {"name": name})
    assert authenticate(client, admin, {"domain": {"name": name}}).status_code == 201


def test_the_catalog_has_all_services_and_interfaces(client: Api, template: Template) -> None:
    catalog = authenticate(client, named_password_auth(template, "demo")).json["token"]["catalog"]
    urls = {service["type"]: {each["url"] for each in service["endpoints"]} for service in catalog}
    assert urls == {
        "identity": {"http://localhost/identity"},
        "image": {"http://localhost/image"},
        "compute": {"http://localhost/compute/v2.1"},
        "network": {"http://localhost/network"},
        "block-storage": {"http://localhost/volume/v3"},
        "volumev3": {"http://localhost/volume/v3"},
        "volume": {"http://localhost/volume/v3"},
    }
    for service in catalog:
        assert {each["interface"] for each in service["endpoints"]} == {"public", "internal", "admin"}
        assert all(each["region"] == each["region_id"] == "RegionOne" for each in service["endpoints"])


def test_nocatalog_leaves_the_catalog_out(client: Api, template: Template) -> None:
    response = authenticate(client, named_password_auth(template, "demo"), query="?nocatalog")
    assert "catalog" not in response.json["token"]


def test_unscoped_tokens_list_available_scopes_only(client: Api, template: Template) -> None:
    response = authenticate(client, named_password_auth(template, "demo"), "unscoped")
    assert not {"roles", "catalog", "project"} & set(response.json["token"])
    me = api_with_token(client, response)
    assert [project["name"] for project in me.get(f"{V3}/auth/projects").json["projects"]] == ["demo"]
    assert me.get(f"{V3}/auth/domains").json["domains"] == []
    assert me.get(f"{V3}/auth/system").json["system"] == []
    assert me.get(f"{V3}/auth/catalog").status_code == 403
    assert me.get("/compute/v2.1/servers").status_code == 403


def test_a_user_without_default_project_gets_an_unscoped_token(client: Api, as_admin: Api) -> None:
    user_id, password = create_member(as_admin, as_admin.project_id)
    response = authenticate(client, password_auth(user_id, password))
    assert response.status_code == 201
    assert "project" not in response.json["token"]


def test_a_deleted_default_project_is_ignored(client: Api, as_admin: Api) -> None:
    user = create(as_admin, "user", password="letmein", default_project_id="a" * 32)
    response = authenticate(client, password_auth(user["id"], "letmein"))
    assert response.status_code == 201
    assert "project" not in response.json["token"]


def test_an_admin_may_scope_to_a_domain_or_the_system(client: Api, template: Template) -> None:
    domain = authenticate(client, named_password_auth(template, "admin"), {"domain": DEFAULT}).json["token"]
    assert domain["domain"] == {"id": "default", "name": "Default"}
    assert {role["name"] for role in domain["roles"]} == {"admin", "manager", "member", "reader"}
    assert "project" not in domain
    system = authenticate(client, named_password_auth(template, "admin"), {"system": {"all": True}}).json["token"]
    assert system["system"] == {"all": True}


@pytest.mark.parametrize(
    "scope",
    [
        {"project": {"name": "admin", "domain": DEFAULT}},
        {"project": {"id": "b" * 32}},
        {"project": {"name": "nowhere", "domain": {"name": "nowhere"}}},
        {"domain": DEFAULT},
        {"system": {"all": True}},
    ],
)
def test_a_scope_without_a_role_there_is_refused(client: Api, template: Template, scope: object) -> None:
    response = authenticate(client, named_password_auth(template, "demo"), scope)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Keystone uri="http://localhost/identity/v3"'
    assert response.json["error"] == {
        "code": 401,
        "title": "Unauthorized",
        "message": "The request you have made requires authentication.",
    }


def test_wrong_passwords_and_unknown_users_look_equal(client: Api, template: Template) -> None:
    wrong = authenticate(client, password_auth("c" * 32, "nonsense"))
    identity = named_password_auth(template, "demo")
    identity["password"]["user"]["password"] = "nonsense"
    unknown = authenticate(client, identity)
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json == unknown.json


@pytest.mark.parametrize(
    "auth",
    [
        None,
        {},
        {"identity": {}},
        {"identity": {"methods": "password"}},
        {"identity": {"methods": ["password"]}},
        {"identity": {"methods": ["password"], "password": {"user": {"name": "demo", "password": "x"}}}},
        {"identity": {"methods": ["password"], "password": {"user": {"id": "demo"}}}},
        {"identity": {"methods": ["token"], "token": {"id": 5}}},
        {"identity": {"methods": ["token"], "token": {"id": "x"}}, "scope": {"project": {"name": "demo"}}},
        {"identity": {"methods": ["token"], "token": {"id": "x"}}, "scope": {}},
        {
            "identity": {"methods": ["token"], "token": {"id": "x"}},
            "scope": {"domain": {"id": "default"}, "system": {"all": True}},
        },
        {"identity": {"methods": ["application_credential"], "application_credential": {"name": "x", "secret": "y"}}},
    ],
)
def test_invalid_log_ins_are_a_400_without_the_secret(client: Api, auth: object) -> None:
    response = client.post(f"{V3}/auth/tokens", json={"auth": auth})
    assert response.status_code == 400, response.text
    assert response.json["error"]["code"] == 400


@pytest.mark.parametrize("methods", [["oauth1"], ["totp"], [], ["password", "nonsense"]])
def test_unknown_methods_are_a_401(client: Api, template: Template, methods: list[str]) -> None:
    identity = {**named_password_auth(template, "demo"), "methods": methods}
    assert authenticate(client, identity).status_code == 401


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe"])
def test_bodies_other_than_json_objects_are_a_400(client: Api, data: bytes) -> None:
    response = client.post(f"{V3}/auth/tokens", data=data, headers={"Content-Type": "application/json"})
    assert response.status_code == 400


def test_password_and_token_together_must_be_of_one_user(client: Api, template: Template, as_admin: Api) -> None:
    identity = {
        **named_password_auth(template, "demo"),
        "methods": ["password", "token"],
        "token": {"id": as_admin.token},
    }
    assert authenticate(client, identity).status_code == 401
    mine = api_with_token(client, authenticate(client, named_password_auth(template, "demo")))
    identity["token"] = {"id": mine.token}
    assert set(authenticate(client, identity).json["token"]["methods"]) == {"password", "token"}


def test_rescoping_keeps_expiry_and_audit_chain(
    client: Api, as_admin: Api, template: Template, clock: ManualClock
) -> None:
    first = authenticate(client, named_password_auth(template, "admin"), "unscoped")
    clock.advance(60)
    scope = {"project": {"id": as_admin.project_id}}
    second = authenticate(client, token_auth(first.headers["X-Subject-Token"]), scope)
    clock.advance(60)
    third = authenticate(client, token_auth(second.headers["X-Subject-Token"]), {"domain": DEFAULT})
    for later in (second, third):
        token = later.json["token"]
        assert token["expires_at"] == first.json["token"]["expires_at"]
        assert token["audit_ids"][1] == first.json["token"]["audit_ids"][0]
        assert set(token["methods"]) == {"password", "token"}
    assert third.json["token"]["audit_ids"][0] != second.json["token"]["audit_ids"][0]


def test_a_token_expires(log_in: Callable[[str], Api], clock: ManualClock) -> None:
    holder = log_in("demo")
    clock.advance(3599)
    assert holder.get(f"{V3}/auth/projects").status_code == 200
    clock.advance(1)
    assert holder.get(f"{V3}/auth/projects").status_code == 401


def subject_headers(token: str | None) -> dict[str, str]:
    return {"X-Subject-Token": token or ""}


def test_a_token_can_be_validated_by_its_owner_and_by_an_admin_only(as_member: Api, as_admin: Api, client: Api) -> None:
    for api in (as_member, as_admin):
        response = api.get(f"{V3}/auth/tokens", headers=subject_headers(as_member.token))
        assert response.status_code == 200
        assert response.headers["X-Subject-Token"] == as_member.token
        assert response.json["token"]["user"]["name"] == "demo"
        assert "catalog" in response.json["token"]
    head = as_admin.request("HEAD", f"{V3}/auth/tokens", headers=subject_headers(as_member.token))
    assert (head.status_code, head.data) == (200, b"")
    assert as_member.get(f"{V3}/auth/tokens", headers=subject_headers(as_admin.token)).status_code == 403
    assert (
        "catalog"
        not in as_member.get(f"{V3}/auth/tokens?nocatalog", headers=subject_headers(as_member.token)).json["token"]
    )


@pytest.mark.parametrize("token", ["", "nonsense", "gAAAAAnonsense", "x" * 5000])
def test_validating_an_invalid_token_is_a_404(as_admin: Api, token: str) -> None:
    response = as_admin.get(f"{V3}/auth/tokens", headers=subject_headers(token))
    assert response.status_code == 404
    assert token == "" or token not in response.json["error"]["message"]


def test_allow_expired_validates_expired_tokens(
    client: Api, template: Template, as_member: Api, clock: ManualClock
) -> None:
    clock.advance(3600)
    admin = api_with_token(client, authenticate(client, named_password_auth(template, "admin")))
    path = f"{V3}/auth/tokens"
    assert admin.get(path, headers=subject_headers(as_member.token)).status_code == 404
    found = admin.get(f"{path}?allow_expired=1", headers=subject_headers(as_member.token))
    assert found.status_code == 200
    assert found.json["token"]["user"]["id"] == as_member.user_id
    clock.advance(49 * 3600)
    admin = api_with_token(client, authenticate(client, named_password_auth(template, "admin")))
    assert admin.get(f"{path}?allow_expired=1", headers=subject_headers(as_member.token)).status_code == 404


def test_a_service_user_may_validate_the_tokens_of_others(client: Api, as_admin: Api, as_member: Api) -> None:
    user_id, password = create_member(as_admin, as_admin.project_id, "service")
    service = api_with_token(
        client, authenticate(client, password_auth(user_id, password), {"project": {"id": as_admin.project_id}})
    )
    assert service.get(f"{V3}/auth/tokens", headers=subject_headers(as_member.token)).status_code == 200
    assert service.delete(f"{V3}/auth/tokens", headers=subject_headers(as_member.token)).status_code == 403


def test_revocation_affects_one_token_at_once(log_in: Callable[[str], Api], as_admin: Api) -> None:
    first, second = log_in("demo"), log_in("demo")
    assert first.get("/compute/v2.1/flavors").status_code == 200
    assert first.delete(f"{V3}/auth/tokens", headers=subject_headers(first.token)).status_code == 204
    assert first.get("/compute/v2.1/flavors").status_code == 401
    assert first.get(f"{V3}/auth/tokens", headers=subject_headers(first.token)).status_code == 401
    assert as_admin.get(f"{V3}/auth/tokens", headers=subject_headers(first.token)).status_code == 404
    assert authenticate(first, token_auth(first.token)).status_code == 404
    assert second.get("/compute/v2.1/flavors").status_code == 200


def test_tokens_of_other_users_cannot_be_revoked(as_member: Api, as_admin: Api) -> None:
    assert as_member.delete(f"{V3}/auth/tokens", headers=subject_headers(as_admin.token)).status_code == 403
    assert as_admin.delete(f"{V3}/auth/tokens", headers=subject_headers(as_member.token)).status_code == 204


def test_endpoint_urls_substitute_project_and_user(client: Api, as_admin: Api) -> None:
    service = create(as_admin, "service", type="object-store")
    create(
        as_admin,
        "endpoint",
        service_id=service["id"],
        interface="public",
        url="https://swift.example.org/v1/AUTH_$(project_id)s",
        region_id="RegionOne",
    )
    catalog = as_admin.get(f"{V3}/auth/catalog").json["catalog"]
    (endpoint,) = next(entry for entry in catalog if entry["type"] == "object-store")["endpoints"]
    assert endpoint["url"] == f"https://swift.example.org/v1/AUTH_{as_admin.project_id}"


def test_head_returns_the_headers_of_get(as_member: Api) -> None:
    for path in ("auth/projects", "auth/domains", "auth/system", "auth/catalog"):
        assert as_member.request("HEAD", f"{V3}/{path}").status_code == 200


def test_roles_of_groups_and_inherited_roles_count(client: Api, as_admin: Api) -> None:
    user = create(as_admin, "user", password="letmein")
    group = create(as_admin, "group")
    assert as_admin.put(f"{V3}/groups/{group['id']}/users/{user['id']}").status_code == 204
    top = create(as_admin, "project")
    below = create(as_admin, "project", parent_id=top["id"])
    assign_role(as_admin, f"projects/{top['id']}/groups/{group['id']}", "reader")
    scope = {"project": {"id": top["id"]}}
    identity = password_auth(user["id"], "letmein")
    assert [each["name"] for each in authenticate(client, identity, scope).json["token"]["roles"]] == ["reader"]
    scope = {"project": {"id": below["id"]}}
    assert authenticate(client, identity, scope).status_code == 401
    role = next(r["id"] for r in as_admin.get(f"{V3}/roles?name=member").json["roles"])
    inherit = f"{V3}/OS-INHERIT/projects/{top['id']}/users/{user['id']}/roles/{role}/inherited_to_projects"
    assert as_admin.put(inherit).status_code == 204
    assert [r["name"] for r in authenticate(client, identity, scope).json["token"]["roles"]] == ["member", "reader"]
    names = {project["name"] for project in as_admin.get(f"{V3}/users/{user['id']}/projects").json["projects"]}
    assert names == {top["name"], below["name"]}
