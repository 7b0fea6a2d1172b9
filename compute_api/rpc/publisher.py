"""Sends messages to the broker from any thread, over one connection that is made again when it was lost."""

import threading
from collections.abc import Mapping
from typing import Any

from kombu import Connection, Producer

from app.core import errors
from compute_api.rpc.broker import CONNECTION_ERRORS, TIMEOUT_SECONDS, connection, unavailable


class Publisher:
    """Messages are confirmed by the broker before `send` returns. Safe to use from several threads.

    Not `confirmed` are those that somebody asks for again when they do not arrive.
    """

    def __init__(self, url: str, authority: str | None, *, confirmed: bool = True) -> None:
        self._url, self._authority = url, authority
        self._confirmed = confirmed
        self._lock = threading.Lock()
        self._ended = False
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    def send(self, body: Mapping[str, Any], *, exchange: str = "", routing_key: str, **properties: Any) -> None:
        """Raises Unavailable when the broker cannot be reached; then the message may or may not have arrived."""
        with self._lock:
            if self._ended:
                raise errors.Unavailable("Nothing is sent any more: this process ends.")
            try:
                self._publish(body, exchange, routing_key, properties)
            except CONNECTION_ERRORS:
                # A connection that was idle may have died unseen: a new one decides.
                self._close()
                try:
                    self._publish(body, exchange, routing_key, properties)
                except CONNECTION_ERRORS as error:
                    self._close()
                    raise unavailable(error) from None

    def end(self) -> None:
        """Whoever waits to send something gives up: a broker that does not answer must not keep a process."""
        self._ended = True

    def close(self) -> None:
        """The connection goes; the next message makes a new one."""
        with self._lock:
            self._close()

    def _publish(self, body: Mapping[str, Any], exchange: str, routing_key: str, properties: Mapping[str, Any]) -> None:
        if self._producer is None:
            made = connection(self._url, self._authority, heartbeat=0, confirmed=self._confirmed)
            made.ensure_connection(max_retries=1, interval_start=0, timeout=TIMEOUT_SECONDS)
            self._connection = made
            self._producer = Producer(made.channel())
        self._producer.publish(body, exchange=exchange, routing_key=routing_key, serializer="json", **properties)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.collect(1.0)  # does not ask a broker that may not answer
        self._connection = self._producer = None
