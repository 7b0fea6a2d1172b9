"""Cache of values derived from identity's tables, valid for one epoch."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

MAX_ENTRIES = 20_000


class EpochCache(Generic[Key, Value]):
    """Values by key, all of one epoch. Read the epoch before the tables, so that no cached value is stale."""

    def __init__(self) -> None:
        self._entries: tuple[int, dict[Key, Value]] = (-1, {})

    def get(self, epoch: int, key: Key, read: Callable[[], Value]) -> Value:
        """Return the cached value, or the result of `read`. Exceptions of `read` are not cached."""
        entries = self._entries
        if entries[0] != epoch:
            entries = self._entries = (epoch, {})
        values = entries[1]
        if key in values:
            return values[key]
        value = read()
        if len(values) < MAX_ENTRIES:
            values[key] = value
        return value
