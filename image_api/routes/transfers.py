"""Concurrency limit of uploads and downloads per process and per project.

A transfer occupies a thread for as long as its client takes.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import cast

from flask import current_app

from app.core.errors import Unavailable

RETRY_SECONDS = "10"


class TransferLimiter:
    """Transfer slots of this process. One owner, a project or a host, may hold a quarter of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = max(1, most // 4)
        self._held: Counter[str] = Counter()
        self._lock = Lock()

    def acquire(self, owner: str) -> Callable[[], None]:
        """Acquire a slot; returns an idempotent function that releases it. Raises Unavailable."""
        with self._lock:
            if self._held.total() >= self._most:
                raise _unavailable(f"Too many image transfers are in progress; retry in {RETRY_SECONDS} s.")
            if self._held[owner] >= self._share:
                raise _unavailable(
                    f"This project has {self._share} image transfers in progress; retry in {RETRY_SECONDS} s."
                )
            self._held[owner] += 1
        held = [True]

        def release() -> None:
            with self._lock:
                if held:
                    held.clear()
                    self._held[owner] -= 1
                    if not self._held[owner]:
                        del self._held[owner]

        return release

    @contextmanager
    def slot(self, owner: str) -> Iterator[None]:
        """Hold a slot while the block runs."""
        release = self.acquire(owner)
        try:
            yield
        finally:
            release()


def _unavailable(message: str) -> Unavailable:
    return Unavailable(message, headers={"Retry-After": RETRY_SECONDS})


def transfer_limiter() -> TransferLimiter:
    return cast(TransferLimiter, current_app.extensions["sixstack.images.transfers"])
