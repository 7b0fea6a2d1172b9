"""What was read from identity's tables, kept while the epoch stands still."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

MAX_ENTRIES = 20_000


class EpochCache(Generic[Key, Value]):
    """Values by key, all of one epoch. Read the epoch first, and the tables after it: then no value is ever too old."""

    def __init__(self) -> None:
        self._held: tuple[int, dict[Key, Value]] = (-1, {})

    def get(self, epoch: int, key: Key, read: Callable[[], Value]) -> Value:
        """The value, which `read` finds where it is not known yet. What `read` raises is not remembered."""
        held = self._held
        if held[0] != epoch:
            held = self._held = (epoch, {})
        values = held[1]
        if key in values:
            return values[key]
        value = read()
        if len(values) < MAX_ENTRIES:
            values[key] = value
        return value
