"""Token payloads and token keys."""

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgpack
import pytest
from cryptography.fernet import InvalidToken

from app.core.settings import Settings
from app.security import keys
from app.security.keys import KeyRing
from identity_api.tokens.payload import Method, Payload, Scope

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def payload(**changes: object) -> Payload:
    fields: dict[str, object] = {
        "user_id": "0123456789abcdef" * 2,
        "methods": Method.PASSWORD | Method.TOKEN,
        "scope": Scope.PROJECT,
        "scope_id": "fedcba9876543210" * 2,
        "issued_at": NOW,
        "expires_at": NOW + timedelta(hours=1),
        "audit_id": os.urandom(16),
        "parent_audit_id": os.urandom(16),
        "generation": 70000,
        "application_credential_id": "f" * 32,
    }
    return Payload(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_largest_token_has_at_most_255_characters(tmp_path: Path) -> None:
    token = KeyRing(tmp_path / "fernet").encrypt(payload().pack(), int(NOW.timestamp()))
    assert len(token) <= 255


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scope": Scope.DOMAIN, "scope_id": "default"},
        {"scope": Scope.SYSTEM, "scope_id": ""},
        {"scope": Scope.UNSCOPED, "scope_id": "", "application_credential_id": None, "parent_audit_id": None},
        {"scope_id": "A" * 32},
        {"scope_id": "ü" * 32},
    ],
)
def test_payloads_are_restored_by_unpack(changes: dict[str, object]) -> None:
    packed = payload(**changes)
    assert Payload.unpack(packed.pack()) == packed


@pytest.mark.parametrize("packed", [b"", b"\x01", msgpack.packb([99]), msgpack.packb([1, 2]), msgpack.packb({})])
def test_invalid_payloads_are_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Payload.unpack(packed)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path)


def test_keys_are_readable_by_their_owner_only(settings: Settings) -> None:
    where = keys.directory(settings)
    KeyRing(where).encrypt(b"x", 0)
    assert where.stat().st_mode & 0o777 == 0o700
    files = list(where.iterdir())
    assert sorted(path.name for path in files) == ["0", "1"]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_rotation_keeps_tokens_valid_in_every_process(settings: Settings) -> None:
    where = keys.directory(settings)
    one, other = KeyRing(where), KeyRing(where)
    tokens = [one.encrypt(b"0", 0)]
    assert other.decrypt(tokens[0]) == b"0"
    for number in range(1, 5):
        keys.rotate(settings)
        tokens.append(one.encrypt(str(number).encode(), 0))
        assert [other.decrypt(token) for token in tokens] == [str(each).encode() for each in range(number + 1)]
        assert KeyRing(where).decrypt(tokens[0]) == b"0"


def test_the_staged_key_is_loaded_before_it_encrypts(settings: Settings) -> None:
    """A process that has not reloaded its keys reads tokens of the next primary key."""
    where = keys.directory(settings)
    late = KeyRing(where)
    late.encrypt(b"x", 0)
    known = late._fernet
    keys.rotate(settings)
    token = KeyRing(where).encrypt(b"y", 0)
    assert known is not None
    assert known.decrypt(token) == b"y"


def test_keys_are_deleted_when_their_tokens_have_expired(settings: Settings) -> None:
    where = keys.directory(settings)
    keys.ensure_keys(where)
    keys.rotate(settings)
    keys.rotate(settings)
    assert sorted(path.name for path in where.iterdir()) == ["0", "1", "2", "3"]
    old = datetime.now(UTC).timestamp() - settings.token_seconds - keys.EXPIRED_WINDOW_SECONDS - 10
    os.utime(where / "2", (old, old))
    keys.rotate(settings)
    assert sorted(path.name for path in where.iterdir()) == ["0", "2", "3", "4"]


def test_concurrent_processes_create_one_set_of_keys(settings: Settings) -> None:
    where = keys.directory(settings)
    made: list[bytes] = []
    threads = [threading.Thread(target=lambda: made.append(KeyRing(where).encrypt(b"x", 0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {KeyRing(where).decrypt(token) for token in made} == {b"x"}
    with pytest.raises(InvalidToken):
        KeyRing(where).decrypt(b"nonsense")
