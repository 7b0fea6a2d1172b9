"""Revocation takes effect at once on every API."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from app.factory import create_app
from tests.api.conftest import Api
from tests.api.identity_fixtures import (
    V3,
    api_with_token,
    assign_role,
    authenticate,
    create,
    credential_auth,
    is_accepted,
    password_auth,
    revoke_role,
)


@dataclass
class TokenHolder:
    """A user in a new domain and project, with a valid token."""

    api: Api
    domain_id: str
    project_id: str
    user_id: str

    @property
    def grant_path(self) -> str:
        return f"projects/{self.project_id}/users/{self.user_id}"


@pytest.fixture
def holder(client: Api, as_admin: Api) -> TokenHolder:
    domain = create(as_admin, "domain")
    project = create(as_admin, "project", domain_id=domain["id"])
    user = create(as_admin, "user", domain_id=domain["id"], password="letmein")
    assign_role(as_admin, f"projects/{project['id']}/users/{user['id']}", "member")
    response = authenticate(client, password_auth(user["id"], "letmein"), {"project": {"id": project["id"]}})
    found = TokenHolder(api_with_token(client, response), domain["id"], project["id"], user["id"])
    assert is_accepted(found.api)
    return found


CHANGES: dict[str, Callable[[Api, TokenHolder], object]] = {
    "user disabled": lambda admin, it: admin.patch(f"{V3}/users/{it.user_id}", json={"user": {"enabled": False}}),
    "user deleted": lambda admin, it: admin.delete(f"{V3}/users/{it.user_id}"),
    "password set": lambda admin, it: admin.patch(f"{V3}/users/{it.user_id}", json={"user": {"password": "new"}}),
    "password changed": lambda _admin, it: it.api.post(
        f"{V3}/users/{it.user_id}/password", json={"user": {"original_password": "letmein", "password": "new"}}
    ),
    "project disabled": lambda admin, it: admin.patch(
        f"{V3}/projects/{it.project_id}", json={"project": {"enabled": False}}
    ),
    "project deleted": lambda admin, it: admin.delete(f"{V3}/projects/{it.project_id}"),
    "domain disabled": lambda admin, it: admin.patch(
        f"{V3}/domains/{it.domain_id}", json={"domain": {"enabled": False}}
    ),
    "role revoked": lambda admin, it: revoke_role(admin, it.grant_path, "member"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_tokens_are_invalid_after(change: str, as_admin: Api, holder: TokenHolder) -> None:
    CHANGES[change](as_admin, holder)
    assert not is_accepted(holder.api)


def test_a_user_who_is_enabled_again_logs_in_again(client: Api, as_admin: Api, holder: TokenHolder) -> None:
    for enabled in (False, True):
        as_admin.patch(f"{V3}/users/{holder.user_id}", json={"user": {"enabled": enabled}})
    assert not is_accepted(holder.api)
    assert authenticate(client, password_auth(holder.user_id, "letmein")).status_code == 201


def test_leaving_or_deleting_a_group_revokes_its_roles(client: Api, as_admin: Api) -> None:
    for leave in ("users/{user}", ""):
        user = create(as_admin, "user", password="letmein")
        group = create(as_admin, "group")
        as_admin.put(f"{V3}/groups/{group['id']}/users/{user['id']}")
        assign_role(as_admin, f"projects/{as_admin.project_id}/groups/{group['id']}", "member")
        scope = {"project": {"id": as_admin.project_id}}
        me = api_with_token(client, authenticate(client, password_auth(user["id"], "letmein"), scope))
        assert is_accepted(me)
        path = f"{V3}/groups/{group['id']}/{leave.format(user=user['id'])}".rstrip("/")
        assert as_admin.delete(path).status_code == 204
        assert not is_accepted(me)


def test_revoked_roles_take_effect_at_once(client: Api, as_admin: Api, holder: TokenHolder) -> None:
    assign_role(as_admin, holder.grant_path, "reader")
    assert holder.api.post("/compute/v2.1/os-keypairs", json={"keypair": {}}).status_code == 400
    revoke_role(as_admin, holder.grant_path, "member")
    response = holder.api.get(f"{V3}/auth/tokens", headers={"X-Subject-Token": holder.api.token or ""})
    assert [role["name"] for role in response.json["token"]["roles"]] == ["reader"]


def test_removed_implications_take_effect_at_once(client: Api, as_admin: Api, holder: TokenHolder) -> None:
    boss = create(as_admin, "role")
    manager = as_admin.get(f"{V3}/roles?name=manager").json["roles"][0]["id"]
    implies = f"{V3}/roles/{boss['id']}/implies/{manager}"
    assert as_admin.put(implies).status_code == 201
    assign_role(as_admin, holder.grant_path, boss["name"])

    def roles() -> set[str]:
        response = holder.api.get(f"{V3}/auth/tokens", headers={"X-Subject-Token": holder.api.token or ""})
        return {role["name"] for role in response.json["token"]["roles"]}

    assert roles() == {boss["name"], "manager", "member", "reader"}
    assert as_admin.delete(implies).status_code == 204
    assert roles() == {boss["name"], "member", "reader"}
    assert as_admin.delete(f"{V3}/roles/{boss['id']}").status_code == 204
    assert roles() == {"member", "reader"}


def test_deleting_an_application_credential_ends_its_tokens(client: Api, holder: TokenHolder) -> None:
    path = f"{V3}/users/{holder.user_id}/application_credentials"
    created = holder.api.post(path, json={"application_credential": {"name": "ci"}}).json["application_credential"]
    ci = api_with_token(client, authenticate(client, credential_auth(created["id"], created["secret"])))
    assert is_accepted(ci)
    assert holder.api.delete(f"{path}/{created['id']}").status_code == 204
    assert not is_accepted(ci)
    assert is_accepted(holder.api)


def test_a_revoked_role_deletes_credentials_that_hold_it(client: Api, as_admin: Api, holder: TokenHolder) -> None:
    path = f"{V3}/users/{holder.user_id}/application_credentials"
    created = holder.api.post(path, json={"application_credential": {"name": "ci"}}).json["application_credential"]
    ci = api_with_token(client, authenticate(client, credential_auth(created["id"], created["secret"])))
    assign_role(as_admin, holder.grant_path, "reader")
    revoke_role(as_admin, holder.grant_path, "member")
    assert not is_accepted(ci)
    assign_role(as_admin, holder.grant_path, "member")
    assert authenticate(client, credential_auth(created["id"], created["secret"])).status_code == 401
    assert holder.api.get(f"{path}/{created['id']}").status_code == 404


def test_an_application_credential_expires_before_its_token(
    client: Api, holder: TokenHolder, clock: ManualClock
) -> None:
    path = f"{V3}/users/{holder.user_id}/application_credentials"
    end = clock.now().replace(microsecond=0).isoformat()[:19]
    assert (
        holder.api.post(path, json={"application_credential": {"name": "late", "expires_at": end}}).status_code == 400
    )
    clock.advance(-600)
    body = {"application_credential": {"name": "ci", "expires_at": end}}
    created = holder.api.post(path, json=body).json["application_credential"]
    ci = api_with_token(client, authenticate(client, credential_auth(created["id"], created["secret"])))
    assert is_accepted(ci)
    clock.advance(600)
    assert not is_accepted(ci)
    assert is_accepted(holder.api)
    assert authenticate(client, credential_auth(created["id"], created["secret"])).status_code == 401


def test_another_process_sees_a_revocation_at_once(
    as_admin: Api, holder: TokenHolder, settings: Settings, clock: ManualClock
) -> None:
    other_database = Database(settings.database)
    other = Api(create_app(settings, database=other_database, clock=clock).test_client(), holder.api.token)
    assert is_accepted(other)
    revoke_role(as_admin, holder.grant_path, "member")
    assert not is_accepted(other)
    other_database.dispose()
