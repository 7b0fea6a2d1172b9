"""Conductor client of a remote agent: sends every request to the control plane over the broker."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from app.core.errors import Unavailable
from compute_api.rpc import messages, topology
from compute_api.rpc.calls import RpcClient
from compute_api.rpc.messages import ClaimedOperation, DesiredServer, HostState, Outcome
from compute_api.rpc.publisher import Publisher
from compute_api.states import PowerState, VmState
from hypervisor.api.spec import HostReport, MachineSpec, SnapshotFile

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30.0
RETRY_SECONDS = 1.0

Upload = Callable[[str, SnapshotFile], None]
"""Uploads a snapshot, given the id of the image that the operation creates."""


class RemoteConductor:
    """Implements Conductor over RPC. Outcomes are retried until the control plane has confirmed them."""

    def __init__(self, host: str, client: RpcClient, publisher: Publisher, upload: Upload) -> None:
        self._host = host
        self._client = client
        self._publisher = publisher
        self._upload = upload
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Fail requests that wait for the control plane."""
        self._stopping.set()

    def register(self, report: HostReport) -> None:
        """Register the host with its capacity."""
        self._request("register", report=report.model_dump(mode="json"))

    def heartbeat(self) -> None:
        """Publish a heartbeat, which has no reply."""
        expiration = topology.HEARTBEAT_TTL_MS / 1000
        self._publisher.send(
            {}, exchange=topology.host_exchange(self._host), routing_key=topology.KEY_HEARTBEAT, expiration=expiration
        )

    def requeue(self) -> int:
        """Queue operations again that were running when the agent ended; returns how many."""
        return int(self._request("requeue"))

    def waiting(self) -> Sequence[int]:
        """Return the ids of queued operations."""
        return list(self._request("waiting"))

    def claim(self, operation_id: int) -> ClaimedOperation | None:
        """Claim an operation. None when it is not queued, must wait for another one, or is superseded."""
        document = self._request("claim", operation_id=operation_id)
        if document is None:
            return None
        arguments = document["arguments"]
        return ClaimedOperation(
            operation_id,
            document["task"],
            document["machine_id"],
            messages.decode_spec(document["spec"]),
            arguments,
            store_image=lambda snapshot: self._upload(arguments["image_id"], snapshot),
            image_is_stored=lambda: bool(self._request("image_is_stored", operation_id=operation_id)),
            request_id=document.get("request_id") or "",
        )

    def release(self, operation_id: int) -> None:
        """Queue the operation again after an error of the agent; limited by the number of attempts."""
        self._request_with_retries("release", operation_id=operation_id)

    def finish(self, operation: ClaimedOperation, outcome: Outcome) -> None:
        """Report the outcome of an operation."""
        self._request_with_retries("report", operation_id=operation.operation_id, result=asdict(outcome))

    def interrupted(self) -> Sequence[str]:
        """Return servers with a queued operation that interrupts the running one."""
        return list(self._request("interrupted"))

    def host_state(self) -> HostState:
        """Return the desired state of this host; operations past their deadline fail."""
        return messages.decode_host_state(self._request("host_state"))

    def spec(self, machine_id: str) -> MachineSpec | None:
        """Return the machine spec of a server that belongs to this host, else None."""
        return messages.decode_spec(self._request("spec", machine_id=machine_id))

    def report_state(self, server: DesiredServer, vm_state: VmState, power_state: PowerState, why: str) -> None:
        """Report an actual state that differs from the desired one."""
        self._request("report_state", server=asdict(server), vm_state=vm_state, power_state=power_state, why=why)

    def _request(self, name: str, **arguments: Any) -> Any:
        """Send a request. Raises Unavailable when the control plane does not respond."""
        exchange = topology.host_exchange(self._host)
        request = {"ask": name, **arguments}
        return self._client.call(
            request, exchange=exchange, routing_key=topology.KEY_CONDUCTOR, seconds=TIMEOUT_SECONDS
        )

    def _request_with_retries(self, name: str, **arguments: Any) -> None:
        """Retry until the control plane responds or the agent ends; then the operation is executed again."""
        while True:
            try:
                self._request(name, **arguments)
                return
            except Unavailable as error:
                if self._stopping.is_set():
                    raise
                log.warning("Control plane unreachable, retrying %s: %s", name, error)
                time.sleep(RETRY_SECONDS)
