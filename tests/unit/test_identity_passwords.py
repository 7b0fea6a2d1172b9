"""Password verification: results, constant time, caching and concurrency limits."""

import threading
import time
from collections.abc import Callable

import pytest

from app.core import errors
from identity_api.auth import passwords
from identity_api.auth.passwords import Verifier


def wait_until(look: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not look():
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Passwords checked by a hash computation."""
    seen: list[str] = []
    real = passwords._matches

    def counted(digest: str, password: str) -> bool:
        seen.append(password)
        return real(digest, password)

    monkeypatch.setattr(passwords, "_matches", counted)
    return seen


def test_only_the_right_password_matches() -> None:
    verifier, digest = Verifier(4), passwords.hash_password("right")
    assert verifier.verify(digest, "right", "user")
    assert not verifier.verify(digest, "wrong", "user")
    assert not verifier.verify("no hash at all", "right", "user")


def test_unknown_users_cost_the_same_and_never_match(hashes: list[str]) -> None:
    verifier = Verifier(4)
    assert not verifier.verify(None, "x", "")
    assert hashes == ["x"]


def test_checks_not_admitted_cost_the_same_and_fail(hashes: list[str]) -> None:
    verifier, digest = Verifier(4), passwords.hash_password("right")
    assert not verifier.verify(digest, "right", "user", "2001:db8::1", lambda: False)
    assert hashes == ["right"]
    assert verifier.verify(digest, "right", "user", "2001:db8::1")
    assert verifier.verify(digest, "right", "user", "2001:db8::1", lambda: False)
    assert not verifier.verify(digest, "right", "user", "2001:db8::2", lambda: False)


def test_only_right_passwords_are_cached_until_expiry(hashes: list[str]) -> None:
    now = 0.0
    verifier, digest = Verifier(4, monotonic=lambda: now), passwords.hash_password("right")
    for _ in range(3):
        assert verifier.verify(digest, "right", "user")
        assert not verifier.verify(digest, "wrong", "user")
    assert hashes == ["right", "wrong", "wrong", "wrong"]
    now = passwords.CACHE_SECONDS
    assert verifier.verify(digest, "right", "user")
    assert hashes[-1] == "right"


def test_a_new_hash_misses_the_cache(hashes: list[str]) -> None:
    verifier = Verifier(4)
    assert verifier.verify(passwords.hash_password("right"), "right", "user")
    assert not verifier.verify(passwords.hash_password("other"), "right", "user")


def test_generated_secrets_need_no_slow_hash(hashes: list[str]) -> None:
    verifier, secret = Verifier(4), passwords.generate_secret()
    digest = passwords.digest_generated_secret(secret, "id")
    assert verifier.verify(digest, secret, "id")
    assert not verifier.verify(digest, secret, "other id")
    assert not verifier.verify(digest, secret[:-1], "id")
    assert hashes == []


def test_the_token_bucket_refills_with_time() -> None:
    now = 0.0
    burst = passwords._TokenBucket(3, 2.0, lambda: now)
    assert [burst.take() for _ in range(4)] == [True, True, True, False]
    now = 1.0
    assert [burst.take() for _ in range(3)] == [True, True, False]
    now = 100.0
    assert [burst.take() for _ in range(4)] == [True, True, True, False]


def test_excess_checks_are_rejected_with_429(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slow checks run: a fourth is rejected at once, an equal one waits for the running check."""
    release, begun = threading.Event(), threading.Semaphore(0)

    def slow(_digest: str, password: str) -> bool:
        begun.release()
        release.wait(30)
        return password == "right"

    monkeypatch.setattr(passwords, "_matches", slow)
    verifier = Verifier(3, burst=0)
    found: list[bool] = []

    def check(password: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: found.append(verifier.verify("digest", password, "user")))
        thread.start()
        return thread

    threads = [check("right")]
    assert begun.acquire(timeout=30)
    threads += [check("wrong"), check("other")]
    wait_until(lambda: verifier._admitted._value == 0)
    threads.append(check("right"))
    with pytest.raises(errors.TooManyRequests) as refused:
        verifier.verify("digest", "fourth", "user")
    assert refused.value.headers["Retry-After"] == "1"
    release.set()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, False, True, True]
    assert not verifier.verify("digest", "fifth", "user")
