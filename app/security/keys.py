"""Fernet keys of tokens: files in `state/keys/fernet`, shared by all API processes.

The highest number is the primary key, which encrypts. `0` is the staged key: every process loads it before it becomes
primary, so that every process can decrypt every token. The others only decrypt.
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
"""How long after its expiry a token can be validated with `allow_expired`, as long-running services need."""


class KeyRing:
    """Keys of a directory, reloaded when it changes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._loaded_mtime: int | None = None
        self._fernet: MultiFernet | None = None

    def encrypt(self, plain: bytes, at: int) -> bytes:
        """Encrypt with the primary key; `at` is the time stored in the token, in seconds since 1970."""
        return self._load().encrypt_at_time(plain, at)

    def decrypt(self, token: bytes) -> bytes:
        """Decrypt with any key. Raises InvalidToken."""
        fernet = self._fernet or self._load()
        try:
            return fernet.decrypt(token)
        except InvalidToken:
            newer = self._load()
            if newer is fernet:
                raise
            return newer.decrypt(token)

    def _load(self) -> MultiFernet:
        changed = _directory_mtime(self._directory)
        fernet = self._fernet
        if fernet is not None and changed == self._loaded_mtime:
            return fernet
        with self._lock:
            ensure_keys(self._directory)
            self._loaded_mtime = _directory_mtime(self._directory)
            keys = _key_files(self._directory)
            self._fernet = MultiFernet([Fernet(path.read_bytes().strip()) for _, path in reversed(keys)])
            return self._fernet


def directory(settings: Settings) -> Path:
    """Return the directory of the token keys."""
    return settings.state / "keys" / "fernet"


def ensure_keys(key_directory: Path) -> None:
    """Create the directory and its first two keys; idempotent."""
    with _locked(key_directory):
        numbers = [number for number, _ in _key_files(key_directory)]
        if not any(numbers):
            _write_key(key_directory / "1", Fernet.generate_key())
        if 0 not in numbers:
            _write_key(key_directory / "0", Fernet.generate_key())


def rotate(settings: Settings) -> None:
    """Promote the staged key to primary and stage a new one.

    A former primary key is deleted when all tokens that it encrypted are too old even for `allow_expired`.
    """
    key_directory = directory(settings)
    ensure_keys(key_directory)
    with _locked(key_directory):
        files = _key_files(key_directory)
        primary = files[-1][0] + 1
        os.rename(key_directory / "0", key_directory / str(primary))
        os.utime(key_directory / str(primary))
        _write_key(key_directory / "0", Fernet.generate_key())
        oldest_kept = time.time() - settings.token_seconds - EXPIRED_WINDOW_SECONDS
        numbered = [path for number, path in _key_files(key_directory) if number > 0]
        for path, successor in pairwise(numbered):
            if successor.stat().st_mtime < oldest_kept:
                path.unlink()


def _directory_mtime(key_directory: Path) -> int | None:
    try:
        return key_directory.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _key_files(key_directory: Path) -> list[tuple[int, Path]]:
    return sorted((int(path.name), path) for path in key_directory.iterdir() if path.name.isdigit())


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
def _locked(key_directory: Path) -> Iterator[None]:
    key_directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    ensure_directory(key_directory)
    with os.fdopen(open_or_create(key_directory.with_suffix(".lock")), "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
