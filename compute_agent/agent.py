"""Agent of one host: executes operations in a thread pool and reconciles machines with the desired state.

Level-triggered: a notification only makes it poll sooner. It polls every second and reconciles in both directions
(servers without a machine, machines without a server) every five; a remote agent does so less often while nothing
changes.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

from app.core import log_context
from app.core.errors import Unavailable
from app.core.log_context import LogContext
from compute_agent.tasks import carry_out
from compute_api.rpc.messages import Conductor, DesiredServer, HostState
from compute_api.states import MigrationStep, PowerState, TaskState, VmState
from hypervisor.api.errors import HypervisorError
from hypervisor.api.protocol import Hypervisor
from hypervisor.api.spec import HostReport, MachineState

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
RECONCILE_SECONDS = 5.0
HEARTBEAT_SECONDS = 10.0
REGISTER_SECONDS = 300.0
RETRY_SECONDS = 1.0
STUCK_SECONDS = 120.0
MIN_THREADS = 32
NO_SPACE = "The host's disk is full. The guest is paused and continues by itself when there is room; nothing is lost."
UNTHROTTLED_TASKS = frozenset(
    {
        TaskState.POWERING_OFF,
        TaskState.REBOOTING,
        TaskState.SHELVING,
        TaskState.IMAGE_SNAPSHOT,
        TaskState.IMAGE_BACKUP,
        TaskState.SUSPENDING,
        TaskState.DELETING,
        MigrationStep.PERFORM,
        MigrationStep.FINISH,
    }
)


class Agent:
    """Runs until `stop`. With `restart_stopped`, the first reconciliation starts machines that should run instead of
    reporting them shut off: after a reboot of the host or `sixstack down --servers`."""

    def __init__(
        self,
        conductor: Conductor,
        hypervisor: Hypervisor,
        *,
        threads: int,
        grace_seconds: float,
        restart_stopped: bool = False,
        poll_seconds: float = POLL_SECONDS,
        reconcile_seconds: float = RECONCILE_SECONDS,
        idle_seconds: float = 0.0,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._conductor = conductor
        self._hypervisor = hypervisor
        self._grace_seconds = grace_seconds
        self._restart_stopped = restart_stopped
        self._poll_seconds = poll_seconds
        self._reconcile_seconds = reconcile_seconds
        self._idle_seconds = idle_seconds
        self._contacted_at = 0.0
        self._seen: dict[str, MachineState] = {}
        self._registered: HostReport | None = None
        self._registered_at = 0.0
        self._heartbeat_seconds = heartbeat_seconds
        self._polled_at = 0.0
        # Most threads only wait: for a guest to power off, for a snapshot to be written.
        self._pool = ThreadPoolExecutor(max(threads, MIN_THREADS), thread_name_prefix="work")
        self._busy = threading.BoundedSemaphore(threads)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._submitted: set[int] = set()
        self._lock = threading.Lock()

    def notify(self, _operation_ids: Sequence[int] = ()) -> None:
        """Poll now."""
        self._wake.set()

    def stop(self) -> None:
        """End `run` when running operations have ended."""
        self._stopping.set()
        self._wake.set()

    def prepare(self) -> None:
        """Repair the host, register it, requeue its operations and reconcile once, before `run`."""
        self._hypervisor.repair()
        self._register()
        if waiting_again := self._conductor.requeue():
            log.info("%d operations were running when the agent ended and are queued again", waiting_again)
        self.reconcile()
        self._restart_stopped = False

    def run(self) -> None:
        """Poll and reconcile until stopped."""
        reconciled = registered = self._polled_at = time.monotonic()
        beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        beating.start()
        while not self._stopping.is_set():
            notified = self._wake.is_set()
            self._wake.clear()
            self._polled_at = time.monotonic()
            try:
                if not notified and self._is_idle():
                    self._wake.wait(self._poll_seconds)
                    continue
                self._contacted_at = self._polled_at
                if self._polled_at - reconciled >= self._reconcile_seconds:
                    reconciled = self._polled_at
                    self.poll_and_reconcile()
                else:
                    self.poll()
                if time.monotonic() - registered >= self._heartbeat_seconds:
                    self._register()
                    registered = time.monotonic()
            except Exception:
                log.exception("Agent loop failed, continuing")
            self._wake.wait(self._poll_seconds)
        beating.join(timeout=5)
        self._pool.shutdown(wait=True)

    def _is_idle(self) -> bool:
        """Return whether this poll may be skipped: the last one is recent and no machine has changed since."""
        if time.monotonic() - self._contacted_at >= self._idle_seconds:
            return False
        return self._seen == {report.id: report.state for report in self._hypervisor.reports()}

    def carry_out(self, operation_id: int) -> None:
        """Execute an operation and return when it has ended. Does nothing when it is being executed already."""
        with self._lock:
            if operation_id in self._submitted:
                return
            self._submitted.add(operation_id)
        if not self._execute(operation_id):
            self._wake.set()  # it may wait for another operation that must be interrupted

    def _register(self) -> None:
        """Report host facts when they have changed."""
        report = self._hypervisor.describe()
        if report == self._registered and time.monotonic() - self._registered_at < REGISTER_SECONDS:
            return
        self._conductor.register(report)
        self._registered, self._registered_at = report, time.monotonic()

    def _beat(self) -> None:
        """Send heartbeats, in a thread of its own because a poll may take longer than a host may be silent. Stops
        while the main loop is stuck."""
        pause = self._heartbeat_seconds
        while not self._stopping.wait(pause):
            pause = self._heartbeat_seconds
            if time.monotonic() - self._polled_at > STUCK_SECONDS:
                continue
            try:
                self._conductor.heartbeat()
            except Exception as error:
                log.warning("Heartbeat failed: %s", error)
                pause = min(pause, self._poll_seconds)

    def poll(self) -> None:
        """Start queued operations and interrupt the tasks that they preempt."""
        waiting = self._conductor.waiting()
        self._start(waiting)
        if waiting:
            self._interrupt(self._conductor.interrupted())

    def poll_and_reconcile(self) -> None:
        """Start queued operations, reconcile, and repair shared resources of the host."""
        state = self._conductor.host_state()
        self._start(state.waiting)
        self._interrupt(state.interrupted)
        self._reconcile(state)
        self._hypervisor.repair()
        self._hypervisor.evict_images(state.images_in_use)

    def _start(self, operation_ids: Sequence[int]) -> None:
        for operation_id in operation_ids:
            with self._lock:
                if operation_id in self._submitted:
                    continue
                self._submitted.add(operation_id)
            self._pool.submit(self._execute, operation_id)

    def _interrupt(self, machine_ids: Sequence[str]) -> None:
        for machine_id in machine_ids:
            self._hypervisor.interrupt(machine_id)

    def _execute(self, operation_id: int) -> bool:
        """Execute an operation; returns whether this call claimed it."""
        with log_context.use(LogContext()):
            return self._execute_claimed(operation_id)

    def _execute_claimed(self, operation_id: int) -> bool:
        claimed = None
        try:
            if self._stopping.is_set():
                return True
            claimed = self._conductor.claim(operation_id)
            if claimed is not None:
                log_context.begin(LogContext(request_id=claimed.request_id, server_id=claimed.machine_id))
                with nullcontext() if claimed.task in UNTHROTTLED_TASKS else self._busy:
                    outcome = carry_out(claimed, self._hypervisor, self._grace_seconds)
                done = claimed
                self._retry_until_reachable(lambda: self._conductor.finish(done, outcome))
        except Exception:
            log.exception("Operation %d failed unexpectedly; releasing it for a retry", operation_id)
            self._retry_until_reachable(lambda: self._conductor.release(operation_id))
        finally:
            with self._lock:
                self._submitted.discard(operation_id)
            if claimed is not None:  # another operation of the server may have waited for this one
                self._wake.set()
        return claimed is not None

    def _retry_until_reachable(self, report: Callable[[], None]) -> None:
        """Retry until the control plane is reachable again, or the agent stops."""
        while True:
            try:
                return report()
            except Unavailable as error:
                if self._stopping.wait(RETRY_SECONDS):
                    raise
                log.warning("Control plane unreachable, retrying the report: %s", error)

    def reconcile(self) -> None:
        """Reconcile without starting operations."""
        self._reconcile(self._conductor.host_state())

    def _reconcile(self, desired: HostState) -> None:
        """Reconcile machines with the desired state, in both directions.

        Servers with a task in progress are left alone until the task's deadline.
        """
        for machine_id in desired.overdue:
            log.error("Server %s: operation exceeded its deadline", machine_id)
        self._interrupt(desired.overdue)
        wanted = {one.id: one for one in desired.servers}
        reports = self._seen = {report.id: report.state for report in self._hypervisor.reports()}
        for one in wanted.values():
            if one.task_state is None:
                self._reconcile_server(one, reports.get(one.id, MachineState.ABSENT))
        for machine_id in reports.keys() - wanted.keys():
            if self._conductor.spec(machine_id) is None:
                log.warning("Removing machine %s, which belongs to no server", machine_id)
                self._hypervisor.remove(machine_id)

    def _reconcile_server(self, one: DesiredServer, state: MachineState) -> None:
        found = self._hypervisor.report(one.id).state if state is not MachineState.RUNNING else state
        match one.vm_state, found:
            case VmState.ACTIVE | VmState.RESCUED | VmState.RESIZED, MachineState.SHUTOFF | MachineState.ABSENT if (
                self._restart_stopped and one.power_state == PowerState.RUNNING
            ):
                self._restart(one)
            case VmState.ACTIVE, MachineState.SHUTOFF:
                log.info("The guest of server %s has shut down", one.id)
                self._conductor.report_state(one, VmState.STOPPED, PowerState.SHUTDOWN, "The guest has shut itself off")
            case VmState.ACTIVE, MachineState.CRASHED:
                self._conductor.report_state(
                    one, VmState.ERROR, PowerState.CRASHED, "The guest has crashed; a hard reboot may help."
                )
            case VmState.ACTIVE | VmState.STOPPED | VmState.SUSPENDED | VmState.RESIZED, MachineState.ABSENT:
                self._conductor.report_state(
                    one, VmState.ERROR, PowerState.NOSTATE, "The disks of this server are gone."
                )
            case VmState.ACTIVE, MachineState.NO_SPACE:
                log.error("Server %s is paused: the disk of this host is full", one.id)
                self._conductor.report_state(one, VmState.PAUSED, PowerState.PAUSED, NO_SPACE)
            case VmState.RESCUED | VmState.RESIZED, MachineState.NO_SPACE if one.power_state == PowerState.RUNNING:
                self._conductor.report_state(one, VmState(one.vm_state), PowerState.PAUSED, NO_SPACE)
            case VmState.RESCUED | VmState.RESIZED, MachineState.RUNNING if one.power_state == PowerState.PAUSED:
                self._conductor.report_state(one, VmState(one.vm_state), PowerState.RUNNING, "")
            case VmState.ACTIVE, MachineState.PAUSED:
                self._conductor.report_state(one, VmState.PAUSED, PowerState.PAUSED, "")
            case VmState.PAUSED | VmState.STOPPED | VmState.SUSPENDED, MachineState.RUNNING:
                self._conductor.report_state(one, VmState.ACTIVE, PowerState.RUNNING, "")
            case VmState.PAUSED, MachineState.SHUTOFF:
                self._conductor.report_state(one, VmState.STOPPED, PowerState.SHUTDOWN, "")
            case VmState.RESCUED | VmState.RESIZED, MachineState.SHUTOFF if one.power_state == PowerState.RUNNING:
                self._conductor.report_state(one, VmState(one.vm_state), PowerState.SHUTDOWN, "")

    def _restart(self, one: DesiredServer) -> None:
        spec = self._conductor.spec(one.id)
        if spec is None:
            return
        log.info("Restarting server %s", one.id)
        try:
            self._hypervisor.ensure_running(spec)
        except HypervisorError as error:
            self._conductor.report_state(one, VmState.ERROR, PowerState.NOSTATE, str(error))
