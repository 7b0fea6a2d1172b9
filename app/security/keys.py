"""The keys that tokens are encrypted with: files in `state/keys/fernet`, shared by all API processes.

The file with the highest number is the primary key, which encrypts. `0` is the staged key: every process knows it
before it becomes the primary one, so that no process ever meets a token it cannot read. The others only decrypt.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.core.settings import Settings
from app.security.owned_files import ensure_directory, inherit_owner, open_or_create

EXPIRED_WINDOW_SECONDS = 2 * 24 * 3600
"""How long after its end a token can still be validated with `allow_expired`, as long running services do."""


class KeyRing:
    """The keys as this process knows them; follows the directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._seen: int | None = None
        self._fernet: MultiFernet | None = None

    def encrypt(self, plain: bytes, at: int) -> bytes:
        """Encrypt with the primary key; `at` is the time, in seconds, that goes into the token."""
        return self._current().encrypt_at_time(plain, at)

    def decrypt(self, token: bytes) -> bytes:
        """Decrypt with any key. Raises InvalidToken."""
        fernet = self._fernet or self._current()
        try:
            return fernet.decrypt(token)
        except InvalidToken:
            newer = self._current()
            if newer is fernet:
                raise
            return newer.decrypt(token)

    def _current(self) -> MultiFernet:
        changed = _directory_mtime(self._directory)
        fernet = self._fernet
        if fernet is not None and changed == self._seen:
            return fernet
        with self._lock:
            ensure_keys(self._directory)
            self._seen = _directory_mtime(self._directory)
            keys = _key_files(self._directory)
            self._fernet = MultiFernet([Fernet(path.read_bytes().strip()) for _, path in reversed(keys)])
            return self._fernet


def directory(settings: Settings) -> Path:
    """Where the keys are."""
    return settings.state / "keys" / "fernet"


def ensure_keys(where: Path) -> None:
    """Make the directory and its first two keys, unless they are there."""
    with _locked(where):
        numbers = [number for number, _ in _key_files(where)]
        if not any(numbers):
            _write_key(where / "1", Fernet.generate_key())
        if 0 not in numbers:
            _write_key(where / "0", Fernet.generate_key())


def rotate(settings: Settings) -> None:
    """The staged key becomes the primary one, and a new one is staged.

    A former primary key goes only when every token it has encrypted is too old even for `allow_expired`.
    """
    where = directory(settings)
    ensure_keys(where)
    with _locked(where):
        files = _key_files(where)
        primary = files[-1][0] + 1
        os.rename(where / "0", where / str(primary))
        os.utime(where / str(primary))
        _write_key(where / "0", Fernet.generate_key())
        oldest_kept = time.time() - settings.token_seconds - EXPIRED_WINDOW_SECONDS
        numbered = [path for number, path in _key_files(where) if number > 0]
        for path, successor in pairwise(numbered):
            if successor.stat().st_mtime < oldest_kept:
                path.unlink()


def _directory_mtime(where: Path) -> int | None:
    try:
        return where.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _key_files(where: Path) -> list[tuple[int, Path]]:
    return sorted((int(path.name), path) for path in where.iterdir() if path.name.isdigit())


def _write_key(path: Path, key: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        inherit_owner(file.fileno(), path.parent)
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


@contextmanager
def _locked(where: Path) -> Iterator[None]:
    where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    ensure_directory(where)
    with os.fdopen(open_or_create(where.with_suffix(".lock")), "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
