"""Asks hosts on other computers about their machines."""

import threading
from typing import Any
from uuid import uuid4

from kombu import Queue

from compute_api.rpc import broker, topology
from compute_api.rpc.calls import RpcClient
from compute_api.rpc.host_client import TIMEOUT_SECONDS
from compute_api.rpc.publisher import Publisher


class RemoteHostClient:
    """Questions go to the host's own queue; answers come back to one that only this process hears."""

    def __init__(self, url: str, authority: str | None) -> None:
        self._url, self._authority = url, authority
        self._post = Publisher(url, authority)
        self._lock = threading.Lock()
        self._calls: RpcClient | None = None
        self._key = f"{topology.KEY_REPLY}.{uuid4().hex}"

    def __call__(self, host: str, question: str, machine_id: str, **arguments: Any) -> Any:
        """The answer. Raises Unavailable when host or broker do not answer, Conflict with the words of the host."""
        calls = self._listening()
        body = {"question": question, "machine_id": machine_id, "answer_to": self._key, **arguments}
        return calls.call(body, routing_key=topology.request_queue(host), seconds=TIMEOUT_SECONDS)

    def close(self) -> None:
        """Its connections go; the next question makes new ones."""
        with self._lock:
            if self._calls is not None:
                self._calls.stop()
                self._post.close()
                self._calls = None

    def _listening(self) -> RpcClient:
        with self._lock:
            if self._calls is None:
                connection = broker.connection(self._url, self._authority)
                queue = Queue(
                    f"sixstack.api.{self._key.rpartition('.')[2]}",
                    broker.reply_exchange(),
                    self._key,
                    exclusive=True,
                    auto_delete=True,
                )
                self._calls = RpcClient(connection, queue, self._post)
                self._calls.start()
            calls = self._calls
        if not calls.connected.wait(broker.TIMEOUT_SECONDS):
            raise broker.unavailable(ConnectionError())
        return calls
