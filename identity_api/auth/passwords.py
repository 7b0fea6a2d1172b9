"""Passwords and secrets: how they are hashed, checked, and kept from taking the machine.

Passwords and secrets chosen by people: argon2id, 19 MiB, two passes (OWASP). Secrets made here have 256 random bits, so
one HMAC is enough. A slow check that succeeded is remembered for a few minutes under a key of this process, because
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
    """The hash to store. Slow: about 25 ms of one core."""
    return _hasher.hash(password)


def needs_rehash(digest: str) -> bool:
    """Whether the hash was made with other parameters than those of today."""
    try:
        return _hasher.check_needs_rehash(digest)
    except InvalidHashError:
        return False


def generate_secret() -> str:
    """A secret that cannot be guessed."""
    return secrets.token_urlsafe(64)


def digest_generated_secret(secret: str, owner_id: str) -> str:
    """What is stored of a secret that `generate_secret` made."""
    return GENERATED_PREFIX + hmac.new(owner_id.encode(), secret.encode(), hashlib.sha256).hexdigest()


def check_strength(password: str, settings: Settings) -> None:
    """Raise BadRequest for a password that is not allowed here."""
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
    """Checks passwords, a few at a time.

    At most one slow check a core runs. A burst of `burst` may wait for that; when it does not end, `admitted` run or
    wait, and who comes after that is sent away with 429 rather than let log-ins take every thread of the API. Equal
    checks at the same time are done once.
    """

    def __init__(self, admitted: int, burst: int = 50, monotonic: Callable[[], float] = time.monotonic) -> None:
        cores = os.cpu_count() or 1
        self._burst = _TokenBucket(burst, 1.0, monotonic)
        self._running = threading.BoundedSemaphore(cores)
        self._admitted = threading.BoundedSemaphore(max(admitted, 1))
        self._monotonic = monotonic
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._under_way: dict[bytes, Future[bool]] = {}
        self._nobody = hash_password(secrets.token_hex(16))

    def verify(
        self,
        digest: str | None,
        password: str,
        owner_id: str,
        source: str = "",
        admit: Callable[[], bool] = _always_admit,
    ) -> bool:
        """Whether the password fits. Without a digest it takes as long as with one, and fails.

        `admit` is called just before a slow check, but not for a password that is remembered for this source address;
        when it returns False the check takes as long, and fails. Raises TooManyRequests when too many are under way.
        """
        if digest is not None and digest.startswith(GENERATED_PREFIX):
            return hmac.compare_digest(digest, digest_generated_secret(password, owner_id))
        key = hmac.new(self._key, f"{owner_id}\0{source}\0{digest}\0{password}".encode(), hashlib.sha256).digest()
        with self._lock:
            until = self._known.get(key)
            if until is not None and self._monotonic() < until:
                return True
            other = self._under_way.get(key)
            if other is None:
                mine = self._under_way[key] = Future[bool]()
        if other is not None:
            return other.result()
        return self._check_once(key, mine, digest, password, admit)

    def hash(self, password: str) -> str:
        """`hashed`, in the same queue."""
        with self._slot():
            return hash_password(password)

    def _check_once(
        self, key: bytes, mine: Future[bool], digest: str | None, password: str, admit: Callable[[], bool]
    ) -> bool:
        """Check, and resolve the future that equal checks wait for."""
        try:
            with self._slot():
                known = digest if admit() else None
                fits = _matches(known or self._nobody, password) and known is not None
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            if fits:
                self._remember(key)
            mine.set_result(fits)
            return fits
        finally:
            with self._lock:
                del self._under_way[key]

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if self._burst.take():
            with self._running:
                yield
            return
        if not self._admitted.acquire(blocking=False):
            raise errors.TooManyRequests("Too many log-ins at once. Try again.", headers={"Retry-After": "1"})
        try:
            with self._running:
                yield
        finally:
            self._admitted.release()

    def _remember(self, key: bytes) -> None:
        with self._lock:
            self._known[key] = self._monotonic() + CACHE_SECONDS
            self._known.move_to_end(key)
            while len(self._known) > CACHE_SIZE:
                self._known.popitem(last=False)


class _TokenBucket:
    """How many checks may be begun without a look at how many wait: some at once, and then so many a second."""

    def __init__(self, size: int, a_second: float, monotonic: Callable[[], float]) -> None:
        self._size = size
        self._a_second = a_second
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._left = float(size)
        self._at = monotonic()

    def take(self) -> bool:
        """Whether there was one left."""
        with self._lock:
            now = self._monotonic()
            self._left = min(self._size, self._left + (now - self._at) * self._a_second)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


def _matches(digest: str, password: str) -> bool:
    try:
        return _hasher.verify(digest, password)
    except (VerificationError, InvalidHashError):
        return False
