"""Password hashing and verification with bounded concurrency.

Passwords and secrets chosen by users: argon2id, 19 MiB, two passes (OWASP). Generated secrets have 512 random bits, so
one HMAC is enough. Successful slow checks are cached for five minutes under a random key of the process, because
command line clients log in for every command.
"""

import hashlib
import hmac
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.core import errors
from app.core.settings import Settings

MAX_LENGTH = 4096
CACHE_SECONDS = 300
CACHE_SIZE = 10_000
GENERATED_PREFIX = "hmac$"

_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def hash_password(password: str) -> str:
    """Hash a password with argon2id: about 25 ms of one core."""
    return _hasher.hash(password)


def needs_rehash(digest: str) -> bool:
    """Whether the hash was made with parameters other than the current ones."""
    try:
        return _hasher.check_needs_rehash(digest)
    except InvalidHashError:
        return False


def generate_secret() -> str:
    """Generate a secret of 64 random bytes."""
    return secrets.token_urlsafe(64)


def digest_generated_secret(secret: str, owner_id: str) -> str:
    """Digest to store for a secret made by `generate_secret`."""
    return GENERATED_PREFIX + hmac.new(owner_id.encode(), secret.encode(), hashlib.sha256).hexdigest()


def check_strength(password: str, settings: Settings) -> None:
    """Raise Forbidden for a password that is too long, BadRequest if it does not match the configured pattern."""
    if len(password) > MAX_LENGTH:
        raise errors.Forbidden(
            f"The password length must be less than or equal to {MAX_LENGTH}. The server could not comply with "
            "the request because the password is invalid."
        )
    pattern = settings.password_pattern
    if pattern and not re.fullmatch(pattern, password):
        raise errors.BadRequest(
            "The password does not match the requirements: "
            f"{settings.password_pattern_description or 'it must match ' + pattern}."
        )


def _always_admit() -> bool:
    return True


class Verifier:
    """Verifies passwords with bounded concurrency.

    At most one slow check per core runs. Up to `burst` checks may queue (token bucket, refilled by one per second).
    Beyond that at most `admitted` run or wait; further requests get 429, so that log-ins do not occupy all worker
    threads. Concurrent equal checks share one computation.
    """

    def __init__(self, admitted: int, burst: int = 50, monotonic: Callable[[], float] = time.monotonic) -> None:
        cores = os.cpu_count() or 1
        self._burst = _TokenBucket(burst, 1.0, monotonic)
        self._running = threading.BoundedSemaphore(cores)
        self._admitted = threading.BoundedSemaphore(max(admitted, 1))
        self._monotonic = monotonic
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._cache: OrderedDict[bytes, float] = OrderedDict()
        self._in_flight: dict[bytes, Future[bool]] = {}
        self._dummy_digest = hash_password(secrets.token_hex(16))

    def verify(
        self,
        digest: str | None,
        password: str,
        owner_id: str,
        source: str = "",
        admit: Callable[[], bool] = _always_admit,
    ) -> bool:
        """Whether the password matches. Without a digest the check takes as long and fails.

        `admit` is called just before a slow check, but not if the result is cached for this source address; if it
        returns False the check takes as long and fails. Raises TooManyRequests when too many checks are in progress.
        """
        if digest is not None and digest.startswith(GENERATED_PREFIX):
            return hmac.compare_digest(digest, digest_generated_secret(password, owner_id))
        key = hmac.new(self._key, f"{owner_id}\0{source}\0{digest}\0{password}".encode(), hashlib.sha256).digest()
        with self._lock:
            cached_until = self._cache.get(key)
            if cached_until is not None and self._monotonic() < cached_until:
                return True
            pending = self._in_flight.get(key)
            if pending is None:
                future = self._in_flight[key] = Future[bool]()
        if pending is not None:
            return pending.result()
        return self._check_once(key, future, digest, password, admit)

    def hash(self, password: str) -> str:
        """Hash a password within the same concurrency limit."""
        with self._slot():
            return hash_password(password)

    def _check_once(
        self, key: bytes, future: Future[bool], digest: str | None, password: str, admit: Callable[[], bool]
    ) -> bool:
        """Run the check and resolve the future that concurrent equal checks wait for."""
        try:
            with self._slot():
                admitted_digest = digest if admit() else None
                matches = _matches(admitted_digest or self._dummy_digest, password) and admitted_digest is not None
        except BaseException as error:
            future.set_exception(error)
            raise
        else:
            if matches:
                self._cache_success(key)
            future.set_result(matches)
            return matches
        finally:
            with self._lock:
                del self._in_flight[key]

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if self._burst.take():
            with self._running:
                yield
            return
        if not self._admitted.acquire(blocking=False):
            raise errors.TooManyRequests("Too many concurrent log-ins. Try again later.", headers={"Retry-After": "1"})
        try:
            with self._running:
                yield
        finally:
            self._admitted.release()

    def _cache_success(self, key: bytes) -> None:
        with self._lock:
            self._cache[key] = self._monotonic() + CACHE_SECONDS
            self._cache.move_to_end(key)
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)


class _TokenBucket:
    """Token bucket: `size` tokens, refilled at `rate` per second."""

    def __init__(self, size: int, rate: float, monotonic: Callable[[], float]) -> None:
        self._size = size
        self._rate = rate
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._tokens = float(size)
        self._updated_at = monotonic()

    def take(self) -> bool:
        """Take a token; False if the bucket is empty."""
        with self._lock:
            now = self._monotonic()
            self._tokens = min(self._size, self._tokens + (now - self._updated_at) * self._rate)
            self._updated_at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


def _matches(digest: str, password: str) -> bool:
    try:
        return _hasher.verify(digest, password)
    except (VerificationError, InvalidHashError):
        return False
