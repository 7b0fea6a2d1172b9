"""Locks and interrupts of machines: one change at a time for each machine, and a way to shorten it."""

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Iterator

from hypervisor.api.errors import HypervisorError
from hypervisor.base.paths import HostPaths, MachinePaths

log = logging.getLogger(__name__)


class MachineLocks:
    """Reentrant locks and interrupt events by machine id."""

    def __init__(self, paths: HostPaths) -> None:
        self._paths = paths
        self._locks: dict[str, threading.RLock] = {}
        self._guard = threading.Lock()
        self._interrupts: dict[str, threading.Event] = defaultdict(threading.Event)

    @contextlib.contextmanager
    def hold(self, machine_id: str) -> Iterator[MachinePaths]:
        """Serialize changes of one machine: the agent does so itself, but periodic repair changes machines as well.

        Raises HypervisorError for OSError in the block.
        """
        with self._lock(machine_id):
            try:
                yield self._paths.machine(machine_id)
            except OSError as error:
                log.exception("machine %s", machine_id)
                where = f" ({error.filename})" if error.filename else ""
                raise HypervisorError(f"The host's files are in the way: {error.strerror}{where}.") from error

    @contextlib.contextmanager
    def try_hold(self, machine_id: str) -> Iterator[MachinePaths | None]:
        """`hold` without waiting: None while another thread holds the machine."""
        lock = self._lock(machine_id)
        if not lock.acquire(blocking=False):
            yield None
            return
        try:
            with self.hold(machine_id) as paths:
                yield paths
        finally:
            lock.release()

    def reset_interrupt(self, machine_id: str) -> threading.Event:
        """Return the cleared interrupt event of the machine; `interrupt` sets it."""
        event = self._interrupts[machine_id]
        event.clear()
        return event

    def interrupt(self, machine_id: str) -> None:
        """Interrupt operations that wait for the guest."""
        self._interrupts[machine_id].set()

    def forget(self, machine_id: str) -> None:
        """Drop the lock and the interrupt event of a removed machine."""
        self._interrupts.pop(machine_id, None)
        with self._guard:
            self._locks.pop(machine_id, None)

    def _lock(self, machine_id: str) -> threading.RLock:
        with self._guard:
            return self._locks.setdefault(machine_id, threading.RLock())
