"""The agent of one host: takes operations, carries them out in a few threads, and compares what runs with what should.

Level-triggered: a notify only makes it look sooner. It looks by itself every second, and both ways (servers without
their machine, machines without their server) every five; where every look is a message to somebody else it does so
less often while nothing changes here.
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
    """Works until `stop` is called. `restart_stopped`: machines that should run and do not are started, not shown
    as shut off; right after the host itself has rebooted, or after `sixstack down --servers` ended them."""

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
        self._asked_at = 0.0
        self._seen: dict[str, MachineState] = {}
        self._said: HostReport | None = None
        self._said_at = 0.0
        self._heartbeat_seconds = heartbeat_seconds
        self._looked_at = 0.0
        # Most of them only wait: for a guest to power off, for a snapshot to be written.
        self._pool = ThreadPoolExecutor(max(threads, MIN_THREADS), thread_name_prefix="work")
        self._busy = threading.BoundedSemaphore(threads)
        self._looking = threading.Event()
        self._stopping = threading.Event()
        self._submitted: set[int] = set()
        self._lock = threading.Lock()

    def notify(self, _operation_ids: Sequence[int] = ()) -> None:
        """Look now."""
        self._looking.set()

    def stop(self) -> None:
        """End `run` once what is under way has been done."""
        self._stopping.set()
        self._looking.set()

    def prepare(self) -> None:
        """Everything that must be right before the first look: the host is known, its links are there."""
        self._hypervisor.repair()
        self._register()
        if waiting_again := self._conductor.requeue():
            log.info("%d operations were under way when the agent ended; they are done again", waiting_again)
        self.compare()
        self._restart_stopped = False

    def run(self) -> None:
        """Work until stopped."""
        compared = described = self._looked_at = time.monotonic()
        beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        beating.start()
        while not self._stopping.is_set():
            nudged = self._looking.is_set()
            self._looking.clear()
            self._looked_at = time.monotonic()
            try:
                if not nudged and self._is_idle():
                    self._looking.wait(self._poll_seconds)
                    continue
                self._asked_at = self._looked_at
                if self._looked_at - compared >= self._reconcile_seconds:
                    compared = self._looked_at
                    self.poll_and_reconcile()
                else:
                    self.look()
                if time.monotonic() - described >= self._heartbeat_seconds:
                    self._register()
                    described = time.monotonic()
            except Exception:
                log.exception("The agent goes on after a failure")
            self._looking.wait(self._poll_seconds)
        beating.join(timeout=5)
        self._pool.shutdown(wait=True)

    def _is_idle(self) -> bool:
        """Whether there is no need to ask the control plane now: it was asked lately, and nothing has changed here."""
        if time.monotonic() - self._asked_at >= self._idle_seconds:
            return False
        return self._seen == {report.id: report.state for report in self._hypervisor.reports()}

    def carry_out(self, operation_id: int) -> None:
        """Do one operation now and return when it is done. One that somebody has begun already is left alone."""
        with self._lock:
            if operation_id in self._submitted:
                return
            self._submitted.add(operation_id)
        if not self._do(operation_id):
            self._looking.set()  # perhaps it waits for another one, which may be in no hurry

    def _register(self) -> None:
        """Say what this host is like, when that is news."""
        report = self._hypervisor.describe()
        if report == self._said and time.monotonic() - self._said_at < REGISTER_SECONDS:
            return
        self._conductor.register(report)
        self._said, self._said_at = report, time.monotonic()

    def _beat(self) -> None:
        """Say that this host is alive, in a thread of its own: a look may take longer than a host may be silent. But a
        host that looks no more falls silent."""
        pause = self._heartbeat_seconds
        while not self._stopping.wait(pause):
            pause = self._heartbeat_seconds
            if time.monotonic() - self._looked_at > STUCK_SECONDS:
                continue
            try:
                self._conductor.heartbeat()
            except Exception as error:
                log.warning("A heartbeat was not heard: %s", error)
                pause = min(pause, self._poll_seconds)

    def look(self) -> None:
        """Hand every waiting operation to a thread, and let nobody wait for a guest that is to be deleted."""
        waiting = self._conductor.waiting()
        self._begin(waiting)
        if waiting:
            self._interrupt(self._conductor.interrupted())

    def poll_and_reconcile(self) -> None:
        """Begin what waits, look both ways, and put in order what machines share."""
        state = self._conductor.host_state()
        self._begin(state.waiting)
        self._interrupt(state.interrupted)
        self._compare(state)
        self._hypervisor.repair()
        self._hypervisor.evict_images(state.images_in_use)

    def _begin(self, operation_ids: Sequence[int]) -> None:
        for operation_id in operation_ids:
            with self._lock:
                if operation_id in self._submitted:
                    continue
                self._submitted.add(operation_id)
            self._pool.submit(self._do, operation_id)

    def _interrupt(self, machine_ids: Sequence[str]) -> None:
        for machine_id in machine_ids:
            self._hypervisor.interrupt(machine_id)

    def _do(self, operation_id: int) -> bool:
        """Returns whether it was this call that did it."""
        with log_context.use(LogContext()):
            return self._do_within(operation_id)

    def _do_within(self, operation_id: int) -> bool:
        work = None
        try:
            if self._stopping.is_set():
                return True
            work = self._conductor.claim(operation_id)
            if work is not None:
                log_context.begin(LogContext(request_id=work.request_id, server_id=work.machine_id))
                with nullcontext() if work.task in UNTHROTTLED_TASKS else self._busy:
                    outcome = carry_out(work, self._hypervisor, self._grace_seconds)
                done = work
                self._insist(lambda: self._conductor.finish(done, outcome))
        except Exception:
            log.exception("Operation %d could not be carried out; it is tried again", operation_id)
            self._insist(lambda: self._conductor.release(operation_id))
        finally:
            with self._lock:
                self._submitted.discard(operation_id)
            if work is not None:  # something else of the same server may have waited for it
                self._looking.set()
        return work is not None

    def _insist(self, report: Callable[[], None]) -> None:
        """Retry until the control plane is reachable again, or the agent stops."""
        while True:
            try:
                return report()
            except Unavailable as error:
                if self._stopping.wait(RETRY_SECONDS):
                    raise
                log.warning("Control plane unreachable, retrying the report: %s", error)

    def compare(self) -> None:
        """Look both ways, and begin nothing."""
        self._compare(self._conductor.host_state())

    def _compare(self, desired: HostState) -> None:
        """What runs against what should, both ways. Servers that somebody is acting on are left alone, but not for
        longer than it may take, whatever the host is stuck with."""
        for machine_id in desired.overdue:
            log.error("Server %s: the host took too long", machine_id)
        self._interrupt(desired.overdue)
        wanted = {one.id: one for one in desired.servers}
        reports = self._seen = {report.id: report.state for report in self._hypervisor.reports()}
        for one in wanted.values():
            if one.task_state is None:
                self._compare_one(one, reports.get(one.id, MachineState.ABSENT))
        for machine_id in reports.keys() - wanted.keys():
            if self._conductor.spec(machine_id) is None:
                log.warning("Machine %s belongs to no server; it is removed", machine_id)
                self._hypervisor.remove(machine_id)

    def _compare_one(self, one: DesiredServer, state: MachineState) -> None:
        found = self._hypervisor.report(one.id).state if state is not MachineState.RUNNING else state
        match one.vm_state, found:
            case VmState.ACTIVE | VmState.RESCUED | VmState.RESIZED, MachineState.SHUTOFF | MachineState.ABSENT if (
                self._restart_stopped and one.power_state == PowerState.RUNNING
            ):
                self._start_again(one)
            case VmState.ACTIVE, MachineState.SHUTOFF:
                log.info("Server %s has shut itself off", one.id)
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

    def _start_again(self, one: DesiredServer) -> None:
        spec = self._conductor.spec(one.id)
        if spec is None:
            return
        log.info("Server %s is started again", one.id)
        try:
            self._hypervisor.ensure_running(spec)
        except HypervisorError as error:
            self._conductor.report_state(one, VmState.ERROR, PowerState.NOSTATE, str(error))
