"""Whatever takes a right away takes it away at once, on every API."""

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
    authenticate,
    bearer,
    by_credential,
    by_password,
    give,
    make,
    take,
    works,
)


@dataclass
class Somebody:
    """A user of a domain of its own, in a project there, with a token that works."""

    api: Api
    domain_id: str
    project_id: str
    user_id: str

    @property
    def place(self) -> str:
        return f"projects/{self.project_id}/users/{self.user_id}"


@pytest.fixture
def somebody(client: Api, as_admin: Api) -> Somebody:
    domain = make(as_admin, "domain")
    project = make(as_admin, "project", domain_id=domain["id"])
    user = make(as_admin, "user", domain_id=domain["id"], password="letmein")
    give(as_admin, f"projects/{project['id']}/users/{user['id']}", "member")
    answer = authenticate(client, by_password(user["id"], "letmein"), {"project": {"id": project["id"]}})
    found = Somebody(bearer(client, answer), domain["id"], project["id"], user["id"])
    assert works(found.api)
    return found


CHANGES: dict[str, Callable[[Api, Somebody], object]] = {
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
    "role taken": lambda admin, it: take(admin, it.place, "member"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_token_is_refused_after(change: str, as_admin: Api, somebody: Somebody) -> None:
    CHANGES[change](as_admin, somebody)
    assert not works(somebody.api)


def test_a_user_who_is_enabled_again_logs_in_again(client: Api, as_admin: Api, somebody: Somebody) -> None:
    for enabled in (False, True):
        as_admin.patch(f"{V3}/users/{somebody.user_id}", json={"user": {"enabled": enabled}})
    assert not works(somebody.api)
    assert authenticate(client, by_password(somebody.user_id, "letmein")).status_code == 201


def test_leaving_a_group_and_deleting_it_ends_what_it_gave(client: Api, as_admin: Api) -> None:
    for leave in ("users/{user}", ""):
        user = make(as_admin, "user", password="letmein")
        group = make(as_admin, "group")
        as_admin.put(f"{V3}/groups/{group['id']}/users/{user['id']}")
        give(as_admin, f"projects/{as_admin.project_id}/groups/{group['id']}", "member")
        scope = {"project": {"id": as_admin.project_id}}
        me = bearer(client, authenticate(client, by_password(user["id"], "letmein"), scope))
        assert works(me)
        path = f"{V3}/groups/{group['id']}/{leave.format(user=user['id'])}".rstrip("/")
        assert as_admin.delete(path).status_code == 204
        assert not works(me)


def test_fewer_roles_mean_less_at_once(client: Api, as_admin: Api, somebody: Somebody) -> None:
    give(as_admin, somebody.place, "reader")
    assert somebody.api.post("/compute/v2.1/os-keypairs", json={"keypair": {}}).status_code == 400
    take(as_admin, somebody.place, "member")
    answer = somebody.api.get(f"{V3}/auth/tokens", headers={"X-Subject-Token": somebody.api.token or ""})
    assert [role["name"] for role in answer.json["token"]["roles"]] == ["reader"]


def test_a_role_that_implies_no_more_gives_no_more(client: Api, as_admin: Api, somebody: Somebody) -> None:
    boss = make(as_admin, "role")
    manager = as_admin.get(f"{V3}/roles?name=manager").json["roles"][0]["id"]
    implies = f"{V3}/roles/{boss['id']}/implies/{manager}"
    assert as_admin.put(implies).status_code == 201
    give(as_admin, somebody.place, boss["name"])

    def roles() -> set[str]:
        answer = somebody.api.get(f"{V3}/auth/tokens", headers={"X-Subject-Token": somebody.api.token or ""})
        return {role["name"] for role in answer.json["token"]["roles"]}

    assert roles() == {boss["name"], "manager", "member", "reader"}
    assert as_admin.delete(implies).status_code == 204
    assert roles() == {boss["name"], "member", "reader"}
    assert as_admin.delete(f"{V3}/roles/{boss['id']}").status_code == 204
    assert roles() == {"member", "reader"}


def test_an_application_credential_that_is_deleted_ends_its_tokens(client: Api, somebody: Somebody) -> None:
    path = f"{V3}/users/{somebody.user_id}/application_credentials"
    made = somebody.api.post(path, json={"application_credential": {"name": "ci"}}).json["application_credential"]
    ci = bearer(client, authenticate(client, by_credential(made["id"], made["secret"])))
    assert works(ci)
    assert somebody.api.delete(f"{path}/{made['id']}").status_code == 204
    assert not works(ci)
    assert works(somebody.api)


def test_an_application_credential_goes_with_the_role_it_holds(client: Api, as_admin: Api, somebody: Somebody) -> None:
    path = f"{V3}/users/{somebody.user_id}/application_credentials"
    made = somebody.api.post(path, json={"application_credential": {"name": "ci"}}).json["application_credential"]
    ci = bearer(client, authenticate(client, by_credential(made["id"], made["secret"])))
    give(as_admin, somebody.place, "reader")
    take(as_admin, somebody.place, "member")
    assert not works(ci)
    give(as_admin, somebody.place, "member")
    assert authenticate(client, by_credential(made["id"], made["secret"])).status_code == 401
    assert somebody.api.get(f"{path}/{made['id']}").status_code == 404


def test_an_application_credential_expires_before_its_token(
    client: Api, somebody: Somebody, clock: ManualClock
) -> None:
    path = f"{V3}/users/{somebody.user_id}/application_credentials"
    end = clock.now().replace(microsecond=0).isoformat()[:19]
    assert (
        somebody.api.post(path, json={"application_credential": {"name": "late", "expires_at": end}}).status_code == 400
    )
    clock.advance(-600)
    body = {"application_credential": {"name": "ci", "expires_at": end}}
    made = somebody.api.post(path, json=body).json["application_credential"]
    ci = bearer(client, authenticate(client, by_credential(made["id"], made["secret"])))
    assert works(ci)
    clock.advance(600)
    assert not works(ci)
    assert works(somebody.api)
    assert authenticate(client, by_credential(made["id"], made["secret"])).status_code == 401


def test_another_process_sees_a_revocation_at_once(
    as_admin: Api, somebody: Somebody, settings: Settings, clock: ManualClock
) -> None:
    other_database = Database(settings.database)
    other = Api(create_app(settings, database=other_database, clock=clock).test_client(), somebody.api.token)
    assert works(other)
    take(as_admin, somebody.place, "member")
    assert not works(other)
    other_database.dispose()
