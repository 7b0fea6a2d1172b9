"""Requests of many hosts that wait to be answered: hosts take turns, so that none waits for all that another one asks.

h1 ▪▪▪▪▪▪▪▪▪▪  ─┐
h2 ▪            ├─► one of h1, one of h2, one of h3, one of h1, …
h3 ▪▪          ─┘
"""

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Bounded: a host that has `each` waiting is refused, and who adds to `whole` waits until there is room."""

    def __init__(self, each: int, whole: int) -> None:
        self._each = each
        self._room = threading.BoundedSemaphore(whole)
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Item]] = {}  # hosts in the order in which it is their turn

    def add(self, host: str, item: Item) -> bool:
        """Let it wait; False when too much of the host does already."""
        with self._lock:
            if len(self._waiting.get(host, ())) >= self._each:
                return False
        self._room.acquire()
        with self._lock:
            self._waiting.setdefault(host, deque()).append(item)
        return True

    def take(self) -> tuple[str, Item]:
        """The next one; there must be one."""
        with self._lock:
            host = next(iter(self._waiting))
            waiting = self._waiting.pop(host)
            item = waiting.popleft()
            if waiting:
                self._waiting[host] = waiting
        self._room.release()
        return host, item
