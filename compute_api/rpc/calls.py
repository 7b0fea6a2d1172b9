"""RPC client over the broker, used by hosts and by the API."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as TooLate
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from kombu import Connection, Consumer, Message, Queue
from kombu.mixins import ConsumerMixin

from app.core import errors
from compute_api.rpc import broker
from compute_api.rpc.publisher import Publisher

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0


class ConsumerThread(ConsumerMixin):  # type: ignore[misc]
    """Consumer in a thread of its own. Reconnects for ever."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self._name = name
        self._thread: threading.Thread | None = None
        self.connected = threading.Event()
        self._in_use: Connection | None = None  # the mixin consumes on a clone of the connection

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._consume, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop consuming. Waits for the thread, but not for an unresponsive broker."""
        self.should_stop = True
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    @contextmanager
    def establish_connection(self) -> Iterator[Connection]:
        """Connect for one run of the consumer."""
        with self.create_connection() as made:
            yield broker.connect_with_retries(made, self.on_connection_error)

    def _consume(self) -> None:
        while not self.should_stop:
            try:
                self.run()
            except Exception:
                log.exception("Consumer %s failed, continuing", self._name)

    def on_consume_ready(self, connection: Connection, *_args: Any, **_more: Any) -> None:
        self._in_use = connection
        self.connected.set()

    def on_iteration(self) -> None:
        if self._in_use is not None:
            self._in_use.heartbeat_check()

    def on_connection_error(self, exc: Exception, interval: float) -> None:
        self.connected.clear()
        log.warning("The message broker cannot be reached (%s); trying again in %d s", exc, interval)

    def on_connection_revived(self) -> None:
        self.connected.clear()


class RpcClient(ConsumerThread):
    """Sends requests and resolves each with its reply."""

    def __init__(self, connection: Connection, queue: Queue, publisher: Publisher) -> None:
        super().__init__(connection, "replies")
        self._queue = queue
        self._publisher = publisher
        self._waiting: dict[str, Future[Any]] = {}

    def call(self, body: dict[str, Any], *, exchange: str = "", routing_key: str, seconds: float) -> Any:
        """Return the answer to a request. Raises Unavailable on timeout, Conflict with the error of the reply."""
        number = uuid4().hex
        future: Future[Any] = Future()
        self._waiting[number] = future
        try:
            self._publisher.send(
                body, exchange=exchange, routing_key=routing_key, correlation_id=number, expiration=seconds
            )
            answer = future.result(seconds)
        except (TooLate, CancelledError):
            raise errors.Unavailable("The request timed out. Try again.") from None
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            raise errors.Conflict(str(answer["error"]))
        if "answer" not in answer:
            raise errors.Unavailable("The reply is malformed.")
        return answer["answer"]

    def stop(self) -> None:
        """Fail pending requests and stop the thread."""
        for future in list(self._waiting.values()):
            future.cancel()
        super().stop()

    def get_consumers(self, consumer: type[Consumer], _channel: Any) -> list[Consumer]:
        return [consumer([self._queue], callbacks=[self._on_reply], accept=["json"], no_ack=True)]

    def _on_reply(self, body: Any, message: Message) -> None:
        future = self._waiting.get(message.properties.get("correlation_id", ""))
        if future is not None and isinstance(body, dict) and not future.done():
            future.set_result(body)
