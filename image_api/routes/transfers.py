"""How many uploads and downloads a process has under way: each holds a thread for as long as the client likes.

The server has that many threads more than other requests need, so that slow clients never keep the API from answering.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import cast

from flask import current_app

from app.errors import Unavailable

RETRY_SECONDS = "10"


class Transfers:
    """Places for transfers in this process."""

    def __init__(self, most: int) -> None:
        self._places = BoundedSemaphore(most)

    def begin(self) -> Callable[[], None]:
        """Take a place; what is returned gives it back, once however often it is called. Raises Unavailable."""
        if not self._places.acquire(blocking=False):
            headers = {"Retry-After": RETRY_SECONDS}
            raise Unavailable("Too many images are being transferred just now; try again soon.", headers=headers)
        held = [True]

        def end() -> None:
            if held:
                held.clear()
                self._places.release()

        return end

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place for as long as the block runs."""
        end = self.begin()
        try:
            yield
        finally:
            end()


def transfers() -> Transfers:
    return cast(Transfers, current_app.extensions["sixstack.images.transfers"])
