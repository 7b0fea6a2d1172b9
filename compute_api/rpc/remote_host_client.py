"""RPC client of agents of remote hosts."""

import threading
from typing import Any
from uuid import uuid4

from kombu import Queue

from compute_api.rpc import broker, topology
from compute_api.rpc.calls import RpcClient
from compute_api.rpc.host_client import TIMEOUT_SECONDS
from compute_api.rpc.publisher import Publisher


class RemoteHostClient:
    """Sends requests to a host's request queue; replies arrive on an exclusive queue of this process."""

    def __init__(self, url: str, authority: str | None) -> None:
        self._url, self._authority = url, authority
        self._publisher = Publisher(url, authority)
        self._lock = threading.Lock()
        self._calls: RpcClient | None = None
        self._key = f"{topology.KEY_REPLY}.{uuid4().hex}"

    def __call__(self, host: str, method: str, machine_id: str, **arguments: Any) -> Any:
        """Return the answer. Raises Unavailable when host or broker do not respond, Conflict with the host's error."""
        calls = self._connected_client()
        body = {"question": method, "machine_id": machine_id, "answer_to": self._key, **arguments}
        return calls.call(body, routing_key=topology.request_queue(host), seconds=TIMEOUT_SECONDS)

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            if self._calls is not None:
                self._calls.stop()
                self._publisher.close()
                self._calls = None

    def _connected_client(self) -> RpcClient:
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
                self._calls = RpcClient(connection, queue, self._publisher)
                self._calls.start()
            calls = self._calls
        if not calls.connected.wait(broker.TIMEOUT_SECONDS):
            raise broker.unavailable(ConnectionError())
        return calls
