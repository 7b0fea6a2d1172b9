"""Passwords: change, expiry, lockout and concurrent checks."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from argon2 import PasswordHasher
from sqlalchemy import func, select

from app.core.clock import ManualClock
from app.core.settings import Settings
from app.db.database import Database
from app.factory import create_app
from identity_api.auth import lockouts
from identity_api.models import PasswordAttempts, User
from tests.api.conftest import Api, Template
from tests.api.identity_fixtures import (
    V3,
    api_with_token,
    authenticate,
    create,
    create_member,
    credential_auth,
    password_auth,
)

Rules = Callable[..., tuple[Api, Api]]


@pytest.fixture
def cloud(settings: Settings, database: Database, clock: ManualClock, template: Template) -> Rules:
    """Factory: `cloud(lockout_attempts=3)` returns a client and an admin of a cloud with these settings."""

    def created(**changes: object) -> tuple[Api, Api]:
        app = create_app(replace(settings, **changes), database=database, clock=clock)  # type: ignore[arg-type]
        client = Api(app.test_client())
        user = {"name": "admin", "domain": {"id": "default"}, "password": template.passwords["admin"]}
        response = authenticate(client, {"methods": ["password"], "password": {"user": user}})
        return client, Api(client.client, response.headers["X-Subject-Token"], response.json["token"]["project"]["id"])

    return created


def at_address(client: Api, address: str) -> Api:
    """Return the client with another source address."""
    moved = client.client.application.test_client()
    moved.environ_base["REMOTE_ADDR"] = address
    return replace(client, client=moved)


def log_in_status(client: Api, user_id: str, password: str) -> int:
    return authenticate(client, password_auth(user_id, password)).status_code


def change_password(client: Api, user_id: str, old: str, new: str) -> int:
    body = {"user": {"original_password": old, "password": new}}
    return client.post(f"{V3}/users/{user_id}/password", json=body).status_code


def test_users_change_their_own_password_with_the_old_one(client: Api, as_admin: Api) -> None:
    user_id = create(as_admin, "user", password="first")["id"]
    assert change_password(client, user_id, "wrong", "second") == 401
    assert change_password(client, user_id, "first", "first") == 400
    assert change_password(client, user_id, "first", "second") == 204
    assert log_in_status(client, user_id, "first") == 401
    assert log_in_status(client, user_id, "second") == 201


def test_a_locked_password_cannot_be_changed_by_its_user(client: Api, as_admin: Api) -> None:
    user_id = create(as_admin, "user", password="first", options={"lock_password": True})["id"]
    assert change_password(client, user_id, "first", "second") == 400
    as_admin.patch(f"{V3}/users/{user_id}", json={"user": {"options": {"lock_password": None}}})
    assert change_password(client, user_id, "first", "second") == 204


def test_a_user_without_password_cannot_log_in(client: Api, as_admin: Api) -> None:
    user_id = create(as_admin, "user")["id"]
    assert log_in_status(client, user_id, "") == 401
    assert log_in_status(client, user_id, "None") == 401


def test_failed_attempts_lock_the_user_out(cloud: Rules, clock: ManualClock) -> None:
    client, admin = cloud(lockout_attempts=3, lockout_seconds=60)
    user_id = create(admin, "user", password="right")["id"]
    for _ in range(3):
        assert log_in_status(client, user_id, "wrong") == 401
    assert log_in_status(client, user_id, "right") == 401
    assert change_password(client, user_id, "right", "other") == 401
    clock.advance(60)
    for _ in range(2):
        assert log_in_status(client, user_id, "wrong") == 401
    assert log_in_status(client, user_id, "right") == 201
    for _ in range(3):
        assert log_in_status(client, user_id, "wrong") == 401


def test_parallel_attempts_are_limited(cloud: Rules, caplog: pytest.LogCaptureFixture) -> None:
    client, admin = cloud(lockout_attempts=5)
    user_id = create(admin, "user", password="right")["id"]
    statuses: list[int] = []

    def guess(number: int) -> None:
        statuses.append(log_in_status(Api(client.client.application.test_client()), user_id, f"wrong {number}"))

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [401] * 16
    assert caplog.text.count("127.0.0.1: wrong password") == 5
    assert caplog.text.count("127.0.0.1: locked out") == 11
    assert log_in_status(client, user_id, "right") == 401


def test_a_lockout_is_for_one_source_address(cloud: Rules, caplog: pytest.LogCaptureFixture) -> None:
    client, admin = cloud(lockout_attempts=2)
    user_id = create(admin, "user", password="right")["id"]
    for address in ("2001:db8::1", "2001:db8::2", "192.0.2.7", "::ffff:192.0.2.7"):
        assert log_in_status(at_address(client, address), user_id, "wrong") == 401
    assert f"Failed log-in of user {user_id} from 2001:db8::2: wrong password" in caplog.text
    assert log_in_status(at_address(client, "2001:db8::3"), user_id, "right") == 401  # the same /64
    assert log_in_status(at_address(client, "192.0.2.7"), user_id, "right") == 401
    assert log_in_status(at_address(client, "2001:db8:0:1::1"), user_id, "right") == 201
    assert log_in_status(at_address(client, "192.0.2.8"), user_id, "right") == 201
    assert log_in_status(at_address(client, "192.0.2.7"), user_id, "right") == 401


def test_a_cached_password_works_during_a_lockout(cloud: Rules) -> None:
    client, admin = cloud(lockout_attempts=2)
    user_id, password = create_member(admin, admin.project_id)
    assert log_in_status(client, user_id, password) == 201
    for _ in range(3):
        assert log_in_status(client, user_id, "wrong") == 401
        assert log_in_status(at_address(client, "192.0.2.7"), user_id, "wrong") == 401
    assert log_in_status(client, user_id, password) == 201
    assert log_in_status(at_address(client, "192.0.2.7"), user_id, password) == 401


def test_application_credentials_work_during_a_lockout(cloud: Rules) -> None:
    client, admin = cloud(lockout_attempts=1)
    user_id, password = create_member(admin, admin.project_id)
    scope = {"project": {"id": admin.project_id}}
    user = api_with_token(
        client, authenticate(at_address(client, "192.0.2.7"), password_auth(user_id, password), scope)
    )
    fields = {"name": "ci", "secret": "chosen"}
    path = f"{V3}/users/{user_id}/application_credentials"
    created = user.post(path, json={"application_credential": fields}).json["application_credential"]
    for _ in range(2):
        assert log_in_status(client, user_id, "wrong") == 401
    assert log_in_status(client, user_id, password) == 401
    assert authenticate(client, credential_auth(created["id"], "chosen")).status_code == 201
    assert user.get(path).status_code == 200


def test_attempts_for_unknown_users_are_counted(cloud: Rules, caplog: pytest.LogCaptureFixture) -> None:
    client, _ = cloud(lockout_attempts=2)
    for _ in range(3):
        assert log_in_status(client, "a" * 32, "wrong") == 401
    assert caplog.text.count("that does not exist from 127.0.0.1: wrong password") == 2
    assert caplog.text.count("that does not exist from 127.0.0.1: locked out") == 1


@pytest.fixture
def counters(database: Database) -> Callable[[], int]:
    """`counters()` returns the number of attempt counters."""

    def count() -> int:
        with database.reading() as session:
            return session.scalar(select(func.count()).select_from(PasswordAttempts)) or 0

    return count


def test_expired_counters_are_deleted(cloud: Rules, clock: ManualClock, counters: Callable[[], int]) -> None:
    client, _ = cloud(lockout_attempts=2, lockout_seconds=60)
    for number in range(3):
        assert log_in_status(client, f"{number:032}", "wrong") == 401
    assert counters() == 3
    clock.advance(60)
    assert log_in_status(client, "a" * 32, "wrong") == 401
    assert counters() == 1


def test_the_oldest_counters_are_evicted(
    cloud: Rules, clock: ManualClock, counters: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockouts, "MAX_ROWS", 2)
    client, admin = cloud(lockout_attempts=2, lockout_seconds=60)
    user_id = create(admin, "user", password="right")["id"]
    for number in range(4):
        clock.advance(1)
        assert log_in_status(client, f"{number:032}", "wrong") == 401
    for _ in range(2):
        clock.advance(1)
        assert log_in_status(client, user_id, "wrong") == 401
    assert counters() == 2
    assert log_in_status(client, user_id, "right") == 401


def test_the_address_behind_a_trusted_proxy_counts(cloud: Rules) -> None:
    client, admin = cloud(lockout_attempts=1, trusted_proxies="127.0.0.1, 2001:db8:f::/48")
    user_id = create(admin, "user", password="right")["id"]
    behind = replace(client, headers={"X-Forwarded-For": "198.51.100.1, 192.0.2.7, 2001:db8:f::2"})
    assert log_in_status(behind, user_id, "wrong") == 401
    assert log_in_status(behind, user_id, "right") == 401
    forged = replace(client, headers={"X-Forwarded-For": "198.51.100.2, 192.0.2.7"})
    assert log_in_status(forged, user_id, "right") == 401
    assert log_in_status(at_address(forged, "192.0.2.7"), user_id, "right") == 401
    assert log_in_status(client, user_id, "right") == 201


def test_forwarded_addresses_need_a_trusted_proxy(cloud: Rules) -> None:
    client, admin = cloud(lockout_attempts=1)
    user_id = create(admin, "user", password="right")["id"]
    assert log_in_status(replace(client, headers={"X-Forwarded-For": "192.0.2.7"}), user_id, "wrong") == 401
    assert log_in_status(replace(client, headers={"X-Forwarded-For": "192.0.2.8"}), user_id, "right") == 401


def test_password_changes_count_as_attempts(cloud: Rules) -> None:
    client, admin = cloud(lockout_attempts=2)
    user_id = create(admin, "user", password="right")["id"]
    for _ in range(2):
        assert change_password(client, user_id, "wrong", "other") == 401
    assert log_in_status(client, user_id, "right") == 401
    admin.patch(f"{V3}/users/{user_id}", json={"user": {"password": "new"}})
    assert log_in_status(client, user_id, "new") == 201


def test_lockout_can_be_disabled_globally_or_per_user(cloud: Rules) -> None:
    client, admin = cloud(lockout_attempts=1)
    robot = create(admin, "user", password="right", options={"ignore_lockout_failure_attempts": True})["id"]
    assert log_in_status(client, robot, "wrong") == 401
    assert log_in_status(client, robot, "right") == 201
    client, admin = cloud(lockout_attempts=0)
    user_id = create(admin, "user", password="right")["id"]
    assert log_in_status(client, user_id, "wrong") == 401
    assert log_in_status(client, user_id, "right") == 201


def test_an_expired_password_must_be_changed_first(cloud: Rules, clock: ManualClock) -> None:
    client, admin = cloud(password_expires_days=1.0)
    user = create(admin, "user", password="first")
    assert user["password_expires_at"] is not None
    robot = create(admin, "user", password="first", options={"ignore_password_expiry": True})
    clock.advance(86400)
    response = authenticate(client, password_auth(user["id"], "first"))
    assert response.status_code == 401
    assert "expired" in response.json["error"]["message"]
    assert "expired" not in authenticate(client, password_auth(user["id"], "wrong")).text
    assert log_in_status(client, robot["id"], "first") == 201
    assert change_password(client, user["id"], "first", "second") == 204
    assert log_in_status(client, user["id"], "second") == 201


def test_new_passwords_must_match_the_pattern(cloud: Rules) -> None:
    client, admin = cloud(password_pattern=r"(?=.*\d).{8,}", password_pattern_description="8 characters and a digit")
    response = admin.post(f"{V3}/users", json={"user": {"name": "x", "password": "short"}})
    assert response.status_code == 400
    assert "8 characters and a digit" in response.json["error"]["message"]
    user_id = create(admin, "user", password="longer than 8")["id"]
    assert change_password(client, user_id, "longer than 8", "letters only") == 400


def test_a_new_password_must_be_kept_for_the_minimum_time(cloud: Rules, clock: ManualClock) -> None:
    client, admin = cloud(password_minimum_days=1.0)
    user_id = create(admin, "user", password="first")["id"]
    assert change_password(client, user_id, "first", "second") == 400
    clock.advance(86400)
    assert change_password(client, user_id, "first", "second") == 204


def test_a_log_in_rehashes_with_current_parameters(client: Api, as_admin: Api, database: Database) -> None:
    user_id = create(as_admin, "user", password="right")["id"]
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("right")
    with database.transaction() as session:
        session.get_one(User, user_id).password = weak
    assert log_in_status(client, user_id, "right") == 201
    with database.reading() as session:
        renewed = session.get_one(User, user_id).password
    assert renewed is not None
    assert "m=19456,t=2,p=1" in renewed
    assert log_in_status(client, user_id, "right") == 201


@pytest.mark.parametrize("password", ["", " ", "pässwörd 🔑", "a" * 4095])
def test_any_text_may_be_a_password(client: Api, as_admin: Api, password: str) -> None:
    user_id = create(as_admin, "user", password=password)["id"]
    assert log_in_status(client, user_id, password) == 201
    assert log_in_status(client, user_id, password + "x") == 401


def test_a_password_that_is_too_long_is_refused(client: Api, as_admin: Api) -> None:
    response = as_admin.post(f"{V3}/users", json={"user": {"name": "x", "password": "a" * 4097}})
    assert response.status_code == 403
    for user_id in (create(as_admin, "user", password="right")["id"], "a" * 32):
        assert log_in_status(client, user_id, "a" * 4097) == 400
        assert change_password(client, user_id, "a" * 4097, "other") == 400


def test_multi_factor_rules_are_enforced(client: Api, as_admin: Api) -> None:
    options = {"multi_factor_auth_enabled": True, "multi_factor_auth_rules": [["password", "totp"]]}
    user_id = create(as_admin, "user", password="right", options=options)["id"]
    assert log_in_status(client, user_id, "right") == 401
    options = {"multi_factor_auth_enabled": False}
    assert as_admin.patch(f"{V3}/users/{user_id}", json={"user": {"options": options}}).status_code == 200
    assert log_in_status(client, user_id, "right") == 201


@pytest.mark.parametrize("options", [{"nonsense": True}, {"lock_password": "yes"}, {"multi_factor_auth_rules": [1]}])
def test_invalid_user_options_are_a_400(as_admin: Api, options: object) -> None:
    assert as_admin.post(f"{V3}/users", json={"user": {"name": "x", "options": options}}).status_code == 400


def test_a_burst_of_equal_log_ins_succeeds(client: Api, as_admin: Api) -> None:
    """More log-ins than concurrent checks are allowed; equal checks share one computation."""
    user_id, password = create_member(as_admin, as_admin.project_id)
    statuses: list[int] = []

    def log_in() -> None:
        api = Api(client.client.application.test_client())
        statuses.append(log_in_status(api, user_id, password))

    threads = [threading.Thread(target=log_in) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [201] * 16
