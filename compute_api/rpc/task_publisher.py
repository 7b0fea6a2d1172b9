"""Task publisher: notifies remote hosts of operations without blocking the request on the broker.

Notifications that fail are dropped: the operation stays queued in the database, from which its host is notified again.
"""

import logging
import queue
import threading
from collections.abc import Sequence

from celery import Celery

from compute_api.rpc import topology
from compute_api.rpc.broker import CONNECTION_ERRORS
from compute_api.rpc.celery_app import work_queue

log = logging.getLogger(__name__)

MAX_PENDING = 10_000


class CeleryNotifier:
    """Publishes operation ids to the hosts' task queues from a thread of its own."""

    def __init__(self, engine: Celery) -> None:
        self._engine = engine
        self._waiting: queue.Queue[tuple[str, int] | None] = queue.Queue(MAX_PENDING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def __call__(self, host: str, operation_ids: Sequence[int]) -> None:
        """Enqueue notifications without blocking."""
        try:
            for number in operation_ids:
                self._waiting.put_nowait((host, number))
        except queue.Full:
            log.warning("The notification queue is full; the rest is sent later")
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._send_all, name="notifications", daemon=True)
                    self._thread.start()

    def send(self, host: str, operation_id: int) -> bool:
        """Publish one notification; returns whether the broker accepted it."""
        try:
            self._engine.send_task(
                topology.TASK,
                [operation_id],
                queue=work_queue(host),
                retry=False,
                ignore_result=True,
            )
        except CONNECTION_ERRORS as error:
            log.warning("Operation %d could not be sent to %s: %s", operation_id, host, error)
            return False
        return True

    def close(self) -> None:
        """Stop the thread and close the connections."""
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(5)
        self._engine.close()

    def _send_all(self) -> None:
        while True:
            notification = self._waiting.get()
            if notification is None:
                return
            if not self.send(*notification):
                self._drop_pending()

    def _drop_pending(self) -> None:
        """Drop pending notifications; they are repeated from the database when the broker is back."""
        while True:
            try:
                self._waiting.get_nowait()
            except queue.Empty:
                return
