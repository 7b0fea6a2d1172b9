"""Fair queue of requests: round robin over hosts, so that a busy host does not delay the others.

h1 ▪▪▪▪▪▪▪▪▪▪  ─┐
h2 ▪            ├─► h1, h2, h3, h1, …
h3 ▪▪          ─┘
"""

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Bounded round-robin queue: `add` refuses more than `each` items of a host and blocks at `whole` items in all."""

    def __init__(self, each: int, whole: int) -> None:
        self._each = each
        self._room = threading.BoundedSemaphore(whole)
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Item]] = {}  # in the order in which hosts are served

    def add(self, host: str, item: Item) -> bool:
        """Enqueue an item; returns False when the host has `each` items queued."""
        with self._lock:
            if len(self._waiting.get(host, ())) >= self._each:
                return False
        self._room.acquire()
        with self._lock:
            self._waiting.setdefault(host, deque()).append(item)
        return True

    def take(self) -> tuple[str, Item]:
        """Dequeue the next item. The queue must not be empty."""
        with self._lock:
            host = next(iter(self._waiting))
            waiting = self._waiting.pop(host)
            item = waiting.popleft()
            if waiting:
                self._waiting[host] = waiting
        self._room.release()
        return host, item
