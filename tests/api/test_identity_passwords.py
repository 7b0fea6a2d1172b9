"""Passwords: changed, expired, guessed, and too many at once."""

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
from tests.api.identity_fixtures import V3, authenticate, bearer, by_credential, by_password, make, member_of

Rules = Callable[..., tuple[Api, Api]]


@pytest.fixture
def cloud(settings: Settings, database: Database, clock: ManualClock, template: Template) -> Rules:
    """`cloud(lockout_attempts=3)`: a client and an admin of a cloud with these settings."""

    def made(**changes: object) -> tuple[Api, Api]:
        app = create_app(replace(settings, **changes), database=database, clock=clock)  # type: ignore[arg-type]
        client = Api(app.test_client())
        user = {"name": "admin", "domain": {"id": "default"}, "password": template.passwords["admin"]}
        answer = authenticate(client, {"methods": ["password"], "password": {"user": user}})
        return client, Api(client.client, answer.headers["X-Subject-Token"], answer.json["token"]["project"]["id"])

    return made


def at(client: Api, address: str) -> Api:
    """The same client at another address."""
    moved = client.client.application.test_client()
    moved.environ_base["REMOTE_ADDR"] = address
    return replace(client, client=moved)


def status(client: Api, user_id: str, password: str) -> int:
    return authenticate(client, by_password(user_id, password)).status_code


def change(client: Api, user_id: str, old: str, new: str) -> int:
    body = {"user": {"original_password": old, "password": new}}
    return client.post(f"{V3}/users/{user_id}/password", json=body).status_code


def test_users_change_their_own_password_with_the_old_one(client: Api, as_admin: Api) -> None:
    user_id = make(as_admin, "user", password="first")["id"]
    assert change(client, user_id, "wrong", "second") == 401
    assert change(client, user_id, "first", "first") == 400
    assert change(client, user_id, "first", "second") == 204
    assert status(client, user_id, "first") == 401
    assert status(client, user_id, "second") == 201


def test_a_locked_password_cannot_be_changed_by_its_user(client: Api, as_admin: Api) -> None:
    user_id = make(as_admin, "user", password="first", options={"lock_password": True})["id"]
    assert change(client, user_id, "first", "second") == 400
    as_admin.patch(f"{V3}/users/{user_id}", json={"user": {"options": {"lock_password": None}}})
    assert change(client, user_id, "first", "second") == 204


def test_a_user_without_password_cannot_log_in(client: Api, as_admin: Api) -> None:
    user_id = make(as_admin, "user")["id"]
    assert status(client, user_id, "") == 401
    assert status(client, user_id, "None") == 401


def test_guessing_locks_the_user_out_for_a_while(cloud: Rules, clock: ManualClock) -> None:
    client, admin = cloud(lockout_attempts=3, lockout_seconds=60)
    user_id = make(admin, "user", password="right")["id"]
    for _ in range(3):
        assert status(client, user_id, "wrong") == 401
    assert status(client, user_id, "right") == 401
    assert change(client, user_id, "right", "other") == 401
    clock.advance(60)
    for _ in range(2):
        assert status(client, user_id, "wrong") == 401
    assert status(client, user_id, "right") == 201
    for _ in range(3):
        assert status(client, user_id, "wrong") == 401


def test_parallel_guesses_are_limited_like_others(cloud: Rules, caplog: pytest.LogCaptureFixture) -> None:
    client, admin = cloud(lockout_attempts=5)
    user_id = make(admin, "user", password="right")["id"]
    statuses: list[int] = []

    def guess(number: int) -> None:
        statuses.append(status(Api(client.client.application.test_client()), user_id, f"wrong {number}"))

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [401] * 16
    assert caplog.text.count("127.0.0.1: wrong password") == 5
    assert caplog.text.count("127.0.0.1: locked out") == 11
    assert status(client, user_id, "right") == 401


def test_a_lockout_is_for_one_source_address(cloud: Rules, caplog: pytest.LogCaptureFixture) -> None:
    client, admin = cloud(lockout_attempts=2)
    user_id = make(admin, "user", password="right")["id"]
    for address in ("2001:db8::1", "2001:db8::2", "192.0.2.7", "::ffff:192.0.2.7"):
        assert status(at(client, address), user_id, "wrong") == 401
    assert f"Failed log-in of user {user_id} from 2001:db8::2: wrong password" in caplog.text
    assert status(at(client, "2001:db8::3"), user_id, "right") == 401  # the same /64
    assert status(at(client, "192.0.2.7"), user_id, "right") == 401
    assert status(at(client, "2001:db8:0:1::1"), user_id, "right") == 201
    assert status(at(client, "192.0.2.8"), user_id, "right") == 201
    assert status(at(client, "192.0.2.7"), user_id, "right") == 401


def test_who_has_logged_in_lately_is_not_locked_out(cloud: Rules) -> None:
    client, admin = cloud(lockout_attempts=2)
    user_id, password = member_of(admin, admin.project_id)
    assert status(client, user_id, password) == 201
    for _ in range(3):
        assert status(client, user_id, "wrong") == 401
        assert status(at(client, "192.0.2.7"), user_id, "wrong") == 401
    assert status(client, user_id, password) == 201
    assert status(at(client, "192.0.2.7"), user_id, password) == 401


def test_application_credentials_work_during_a_lockout(cloud: Rules) -> None:
    client, admin = cloud(lockout_attempts=1)
    user_id, password = member_of(admin, admin.project_id)
    scope = {"project": {"id": admin.project_id}}
    user = bearer(client, authenticate(at(client, "192.0.2.7"), by_password(user_id, password), scope))
    fields = {"name": "ci", "secret": "chosen"}
    path = f"{V3}/users/{user_id}/application_credentials"
    made = user.post(path, json={"application_credential": fields}).json["application_credential"]
    for _ in range(2):
        assert status(client, user_id, "wrong") == 401
    assert status(client, user_id, password) == 401
    assert authenticate(client, by_credential(made["id"], "chosen")).status_code == 201
    assert user.get(path).status_code == 200


def test_users_that_do_not_exist_are_counted_alike(cloud: Rules, caplog: pytest.LogCaptureFixture) -> None:
    client, _ = cloud(lockout_attempts=2)
    for _ in range(3):
        assert status(client, "a" * 32, "wrong") == 401
    assert caplog.text.count("that does not exist from 127.0.0.1: wrong password") == 2
    assert caplog.text.count("that does not exist from 127.0.0.1: locked out") == 1


@pytest.fixture
def counters(database: Database) -> Callable[[], int]:
    """`counters()`: how many rows there are."""

    def count() -> int:
        with database.reading() as session:
            return session.scalar(select(func.count()).select_from(PasswordAttempts)) or 0

    return count


def test_counters_that_are_over_are_deleted(cloud: Rules, clock: ManualClock, counters: Callable[[], int]) -> None:
    client, _ = cloud(lockout_attempts=2, lockout_seconds=60)
    for number in range(3):
        assert status(client, f"{number:032}", "wrong") == 401
    assert counters() == 3
    clock.advance(60)
    assert status(client, "a" * 32, "wrong") == 401
    assert counters() == 1


def test_the_oldest_of_too_many_counters_are_evicted(
    cloud: Rules, clock: ManualClock, counters: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockouts, "MAX_ROWS", 2)
    client, admin = cloud(lockout_attempts=2, lockout_seconds=60)
    user_id = make(admin, "user", password="right")["id"]
    for number in range(4):
        clock.advance(1)
        assert status(client, f"{number:032}", "wrong") == 401
    for _ in range(2):
        clock.advance(1)
        assert status(client, user_id, "wrong") == 401
    assert counters() == 2
    assert status(client, user_id, "right") == 401


def test_the_address_behind_a_trusted_proxy_counts(cloud: Rules) -> None:
    client, admin = cloud(lockout_attempts=1, trusted_proxies="127.0.0.1, 2001:db8:f::/48")
    user_id = make(admin, "user", password="right")["id"]
    behind = replace(client, headers={"X-Forwarded-For": "198.51.100.1, 192.0.2.7, 2001:db8:f::2"})
    assert status(behind, user_id, "wrong") == 401
    assert status(behind, user_id, "right") == 401
    forged = replace(client, headers={"X-Forwarded-For": "198.51.100.2, 192.0.2.7"})
    assert status(forged, user_id, "right") == 401
    assert status(at(forged, "192.0.2.7"), user_id, "right") == 401
    assert status(client, user_id, "right") == 201


def test_a_forwarded_address_counts_for_nothing_without_a_trusted_proxy(cloud: Rules) -> None:
    client, admin = cloud(lockout_attempts=1)
    user_id = make(admin, "user", password="right")["id"]
    assert status(replace(client, headers={"X-Forwarded-For": "192.0.2.7"}), user_id, "wrong") == 401
    assert status(replace(client, headers={"X-Forwarded-For": "192.0.2.8"}), user_id, "right") == 401


def test_guessing_by_changing_the_password_counts_too(cloud: Rules) -> None:
    client, admin = cloud(lockout_attempts=2)
    user_id = make(admin, "user", password="right")["id"]
    for _ in range(2):
        assert change(client, user_id, "wrong", "other") == 401
    assert status(client, user_id, "right") == 401
    admin.patch(f"{V3}/users/{user_id}", json={"user": {"password": "new"}})
    assert status(client, user_id, "new") == 201


def test_lock_out_can_be_off_for_all_or_for_one(cloud: Rules) -> None:
    client, admin = cloud(lockout_attempts=1)
    robot = make(admin, "user", password="right", options={"ignore_lockout_failure_attempts": True})["id"]
    assert status(client, robot, "wrong") == 401
    assert status(client, robot, "right") == 201
    client, admin = cloud(lockout_attempts=0)
    user_id = make(admin, "user", password="right")["id"]
    assert status(client, user_id, "wrong") == 401
    assert status(client, user_id, "right") == 201


def test_an_expired_password_must_be_changed_first(cloud: Rules, clock: ManualClock) -> None:
    client, admin = cloud(password_expires_days=1.0)
    user = make(admin, "user", password="first")
    assert user["password_expires_at"] is not None
    robot = make(admin, "user", password="first", options={"ignore_password_expiry": True})
    clock.advance(86400)
    answer = authenticate(client, by_password(user["id"], "first"))
    assert answer.status_code == 401
    assert "expired" in answer.json["error"]["message"]
    assert "expired" not in authenticate(client, by_password(user["id"], "wrong")).text
    assert status(client, robot["id"], "first") == 201
    assert change(client, user["id"], "first", "second") == 204
    assert status(client, user["id"], "second") == 201


def test_new_passwords_must_match_the_pattern(cloud: Rules) -> None:
    client, admin = cloud(password_pattern=r"(?=.*\d).{8,}", password_pattern_description="8 characters and a digit")
    answer = admin.post(f"{V3}/users", json={"user": {"name": "x", "password": "short"}})
    assert answer.status_code == 400
    assert "8 characters and a digit" in answer.json["error"]["message"]
    user_id = make(admin, "user", password="longer than 8")["id"]
    assert change(client, user_id, "longer than 8", "letters only") == 400


def test_a_new_password_must_be_kept_for_the_minimum_time(cloud: Rules, clock: ManualClock) -> None:
    client, admin = cloud(password_minimum_days=1.0)
    user_id = make(admin, "user", password="first")["id"]
    assert change(client, user_id, "first", "second") == 400
    clock.advance(86400)
    assert change(client, user_id, "first", "second") == 204


def test_a_log_in_renews_a_hash_of_other_parameters(client: Api, as_admin: Api, database: Database) -> None:
    user_id = make(as_admin, "user", password="right")["id"]
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("right")
    with database.transaction() as session:
        session.get_one(User, user_id).password = weak
    assert status(client, user_id, "right") == 201
    with database.reading() as session:
        renewed = session.get_one(User, user_id).password
    assert renewed is not None
    assert "m=19456,t=2,p=1" in renewed
    assert status(client, user_id, "right") == 201


@pytest.mark.parametrize("password", ["", " ", "pässwörd 🔑", "a" * 4095])
def test_any_text_may_be_a_password(client: Api, as_admin: Api, password: str) -> None:
    user_id = make(as_admin, "user", password=password)["id"]
    assert status(client, user_id, password) == 201
    assert status(client, user_id, password + "x") == 401


def test_a_password_that_is_too_long_is_refused(client: Api, as_admin: Api) -> None:
    answer = as_admin.post(f"{V3}/users", json={"user": {"name": "x", "password": "a" * 4097}})
    assert answer.status_code == 403
    for user_id in (make(as_admin, "user", password="right")["id"], "a" * 32):
        assert status(client, user_id, "a" * 4097) == 400
        assert change(client, user_id, "a" * 4097, "other") == 400


def test_one_password_is_not_enough_where_two_proofs_are_wanted(client: Api, as_admin: Api) -> None:
    options = {"multi_factor_auth_enabled": True, "multi_factor_auth_rules": [["password", "totp"]]}
    user_id = make(as_admin, "user", password="right", options=options)["id"]
    assert status(client, user_id, "right") == 401
    options = {"multi_factor_auth_enabled": False}
    assert as_admin.patch(f"{V3}/users/{user_id}", json={"user": {"options": options}}).status_code == 200
    assert status(client, user_id, "right") == 201


@pytest.mark.parametrize("options", [{"nonsense": True}, {"lock_password": "yes"}, {"multi_factor_auth_rules": [1]}])
def test_options_that_make_no_sense_are_a_400(as_admin: Api, options: object) -> None:
    assert as_admin.post(f"{V3}/users", json={"user": {"name": "x", "options": options}}).status_code == 400


def test_a_burst_of_log_ins_of_one_user_gets_in(client: Api, as_admin: Api) -> None:
    """More than a worker lets check passwords at once: equal ones are checked once."""
    user_id, password = member_of(as_admin, as_admin.project_id)
    statuses: list[int] = []

    def log_in() -> None:
        api = Api(client.client.application.test_client())
        statuses.append(status(api, user_id, password))

    threads = [threading.Thread(target=log_in) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [201] * 16
