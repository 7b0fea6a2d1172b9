"""The desk of an agent without database access: every request goes to the control plane over the broker."""

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
"""Takes the id of the image that an operation is to make, and the file."""


class RemoteConductor:
    """Implements Desk. What must not be lost is said again until the control plane has heard it."""

    def __init__(self, host: str, calls: RpcClient, post: Publisher, upload: Upload) -> None:
        self._host = host
        self._calls = calls
        self._post = post
        self._upload = upload
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Nobody waits for the control plane any longer."""
        self._stopping.set()

    def register(self, report: HostReport) -> None:
        """Make the host known, with its size."""
        self._ask("register", report=report.model_dump(mode="json"))

    def heartbeat(self) -> None:
        """This host is alive; nobody answers."""
        expiration = topology.HEARTBEAT_TTL_MS / 1000
        self._post.send(
            {}, exchange=topology.host_exchange(self._host), routing_key=topology.KEY_HEARTBEAT, expiration=expiration
        )

    def requeue(self) -> int:
        """What this host had begun before the agent died waits again; returns how much."""
        return int(self._ask("requeue"))

    def waiting(self) -> Sequence[int]:
        """Operations that nobody has begun."""
        return list(self._ask("waiting"))

    def claim(self, operation_id: int) -> ClaimedOperation | None:
        """Take the operation; None when it is taken, must wait for another one, or is overtaken."""
        document = self._ask("claim", operation_id=operation_id)
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
            image_is_stored=lambda: bool(self._ask("image_is_stored", operation_id=operation_id)),
            request_id=document.get("request_id") or "",
        )

    def release(self, operation_id: int) -> None:
        """It could not be finished for reasons of our own: to be done again, but not for ever."""
        self._insist("release", operation_id=operation_id)

    def finish(self, operation: ClaimedOperation, outcome: Outcome) -> None:
        """Hand in how it went."""
        self._insist("report", operation_id=operation.operation_id, result=asdict(outcome))

    def interrupted(self) -> Sequence[str]:
        """Servers for which something waits that may interrupt what is under way."""
        return list(self._ask("interrupted"))

    def host_state(self) -> HostState:
        """Everything of this host at once; what takes longer than it may is given up."""
        return messages.decode_host_state(self._ask("host_state"))

    def spec(self, machine_id: str) -> MachineSpec | None:
        """The document of a server that belongs here; None for others."""
        return messages.decode_spec(self._ask("spec", machine_id=machine_id))

    def report_state(self, server: DesiredServer, vm_state: VmState, power_state: PowerState, why: str) -> None:
        """A server was found in another state than was wanted, and nobody is acting on it."""
        self._ask("report_state", server=asdict(server), vm_state=vm_state, power_state=power_state, why=why)

    def _ask(self, name: str, **arguments: Any) -> Any:
        """Raises Unavailable when the control plane does not answer."""
        exchange = topology.host_exchange(self._host)
        request = {"ask": name, **arguments}
        return self._calls.call(request, exchange=exchange, routing_key=topology.KEY_CONDUCTOR, seconds=TIMEOUT_SECONDS)

    def _insist(self, name: str, **arguments: Any) -> None:
        """Ask until there is an answer, or until the agent ends: what it had begun is then done again."""
        while True:
            try:
                self._ask(name, **arguments)
                return
            except Unavailable as error:
                if self._stopping.is_set():
                    raise
                log.warning("%s waits for the control plane: %s", name, error)
                time.sleep(RETRY_SECONDS)
