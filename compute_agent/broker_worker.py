"""Broker consumers of a remote host: operations (Celery tasks) and RPC requests."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery.bootsteps import CLOSE
from celery.concurrency.thread import TaskPool
from celery.worker import WorkController
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import maybe_shutdown
from kombu import Connection, Consumer, Message, Queue

from app.core.errors import Unavailable
from compute_agent.host_rpc import Methods, handle_request
from compute_api.rpc import broker, topology
from compute_api.rpc.calls import ConsumerThread
from compute_api.rpc.celery_app import make_celery
from compute_api.rpc.publisher import Publisher
from hypervisor.api.protocol import Hypervisor

log = logging.getLogger(__name__)

REQUEST_THREADS = 4
RESTART_SECONDS = 5.0
STOP_SECONDS = 20.0


class _Steps(CeleryConsumer.Blueprint):  # type: ignore[misc]
    """Celery's boot steps without those that need permissions a host does not have."""

    default_steps = (
        "celery.worker.consumer.connection:Connection",
        "celery.worker.consumer.tasks:Tasks",
        "celery.worker.consumer.consumer:Evloop",
    )


class HostConsumer(CeleryConsumer):  # type: ignore[misc]
    """Celery's consumer without mingle and gossip."""

    Blueprint = _Steps

    def ensure_connected(self, conn: Connection) -> Connection:
        """Reconnect within seconds; Celery's own pauses grow to half a minute."""
        return broker.connect_with_retries(conn, self._log_lost_connection, callback=maybe_shutdown)

    def _log_lost_connection(self, error: Exception, interval: float) -> None:
        log.warning("The message broker cannot be reached (%s); trying again in %d s", error, interval)


class TaskWorker:
    """Celery worker in a thread of its own; runs each task with `carry_out`. Restarted when it exits."""

    def __init__(
        self, url: str, authority: str | None, host: str, threads: int, carry_out: Callable[[int], None]
    ) -> None:
        self._url, self._authority, self._host, self._threads = url, authority, host, threads
        self._carry_out = carry_out
        self._stopping = threading.Event()
        self._worker: WorkController | None = None
        self._thread = threading.Thread(target=self._run, name="celery", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the worker; unacknowledged tasks are redelivered."""
        self._stopping.set()
        if self._worker is not None and self._worker.consumer is not None:
            self._worker.consumer.blueprint.state = CLOSE  # the worker's loop checks this about twice a second
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._worker = self._make_worker()
            try:
                self._worker.start()
                self._worker.stop()
            except RuntimeError as error:  # a task arrived after the pool had shut down; it is redelivered
                log.info("Celery consumer stopped: %s", error)
            if not self._stopping.wait(RESTART_SECONDS):
                log.warning("Celery consumer exited, restarting")

    def _make_worker(self) -> WorkController:
        app = make_celery(self._url, self._authority, host=self._host)
        app.conf.worker_consumer = f"{HostConsumer.__module__}:{HostConsumer.__qualname__}"
        app.task(self._carry_out, name=topology.TASK, shared=False, acks_late=True, ignore_result=True)
        app.finalize()

        class Pool(TaskPool):  # type: ignore[misc]
            """Thread pool that sets the current Celery app, as a process may have several hosts."""

            def __init__(self, *args: Any, **more: Any) -> None:
                super().__init__(*args, **more)
                self.executor = ThreadPoolExecutor(self.limit, "work", initializer=app.set_current)

        return _Controller(
            app=app,
            pool_cls=Pool,
            concurrency=self._threads,
            hostname=f"sixstack@{self._host}",
            without_mingle=True,
            without_gossip=True,
            without_heartbeat=True,
        )


class _Controller(WorkController):  # type: ignore[misc]
    """Celery's worker with its blocking loop, which another thread can end."""

    def should_use_eventloop(self) -> bool:
        return False


class RequestServer(ConsumerThread):
    """Serves RPC requests about machines. `more` are methods that only remote hosts have."""

    def __init__(
        self,
        connection: Connection,
        host: str,
        hypervisor: Hypervisor,
        publisher: Publisher,
        more: Methods | None = None,
    ) -> None:
        super().__init__(connection, "requests")
        self._more = more
        self._host = host
        self._hypervisor = hypervisor
        self._publisher = publisher
        self._pool = ThreadPoolExecutor(REQUEST_THREADS, thread_name_prefix="request")

    def stop(self) -> None:
        """Stop consuming and finish the requests that were received."""
        super().stop()
        self._pool.shutdown()

    def get_consumers(self, consumer: type[Consumer], _channel: Any) -> list[Consumer]:
        queue = Queue(topology.request_queue(self._host), no_declare=True)
        return [consumer([queue], callbacks=[self._on_request], accept=["json"], no_ack=True)]

    def _on_request(self, body: Any, message: Message) -> None:
        number = message.properties.get("correlation_id")
        if isinstance(body, dict) and number:
            self._pool.submit(self._handle, body, number)

    def _handle(self, body: dict[str, Any], number: str) -> None:
        key = body.pop("answer_to", "")
        reply = handle_request(self._hypervisor, body, self._more)
        try:
            self._publisher.send(
                reply, exchange=topology.host_exchange(self._host), routing_key=key, correlation_id=number
            )
        except Unavailable as error:
            log.warning("A reply could not be sent: %s", error)
