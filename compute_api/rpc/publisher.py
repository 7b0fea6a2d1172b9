"""Broker publisher: thread-safe, over one connection that is reopened when it is lost."""

import threading
from collections.abc import Mapping
from typing import Any

from kombu import Connection, Producer

from app.core import errors
from compute_api.rpc.broker import CONNECTION_ERRORS, TIMEOUT_SECONDS, connection, unavailable


class Publisher:
    """Publishes messages; thread-safe. With `confirmed`, `send` returns when the broker has the message; without,
    the message may be lost and its sender retries."""

    def __init__(self, url: str, authority: str | None, *, confirmed: bool = True) -> None:
        self._url, self._authority = url, authority
        self._confirmed = confirmed
        self._lock = threading.Lock()
        self._ended = False
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    def send(self, body: Mapping[str, Any], *, exchange: str = "", routing_key: str, **properties: Any) -> None:
        """Publish a message. Raises Unavailable when the broker is unreachable; the message may have arrived
        nevertheless."""
        with self._lock:
            if self._ended:
                raise errors.Unavailable("This process is shutting down.")
            try:
                self._publish(body, exchange, routing_key, properties)
            except CONNECTION_ERRORS:
                # An idle connection may have died unnoticed: retry once on a new one.
                self._close()
                try:
                    self._publish(body, exchange, routing_key, properties)
                except CONNECTION_ERRORS as error:
                    self._close()
                    raise unavailable(error) from None

    def end(self) -> None:
        """Fail pending and later messages, so that an unresponsive broker does not delay the end of the process."""
        self._ended = True

    def close(self) -> None:
        """Close the connection; the next message opens a new one."""
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
            self._connection.collect(1.0)  # closes without waiting for the broker
        self._connection = self._producer = None
