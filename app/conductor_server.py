"""Conductor server: handles requests and reports of remote hosts that arrive over the broker.

`python -m app.conductor_server`, with the settings in SIXSTACK_*. Several may run, on several machines; hosts retry
requests that are lost when one dies. It also notifies hosts again of operations they have not begun, and runs the
reaper.
"""

import logging
import signal
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import datetime
from typing import Any

from kombu import Connection, Consumer, Message
from sqlalchemy.exc import SQLAlchemyError

from app.core import errors, log_context, processes
from app.core.clock import Clock, SystemClock
from app.core.settings import Settings
from app.db.database import Database
from compute_api.conductor.service import LocalConductor
from compute_api.hosts import hosts, liveness
from compute_api.operations import operations, reaper
from compute_api.operations.purge import PurgeThread
from compute_api.rpc import broker, messages, topology
from compute_api.rpc.calls import STOP_SECONDS, ConsumerThread
from compute_api.rpc.driver import make_remote_clients
from compute_api.rpc.fair_queue import FairQueue
from compute_api.rpc.notify import LocalNotifier, Notifier
from compute_api.rpc.publisher import Publisher
from image_api.stores.factory import make_store
from image_api.stores.file import Store

log = logging.getLogger("sixstack.conductor")

THREADS = 8
MAX_PENDING_PER_HOST = 128
"""Queued requests per host; more are dropped and retried by the host. A working agent has no more than its threads."""
MAX_PENDING = 4096
"""Requests taken from the broker; more wait there."""
TICK_SECONDS = 1.0
REAP_SECONDS = 5.0


class ConductorServer(ConsumerThread):
    """Handles requests in a thread pool. The exchange of a message identifies its sender.

    The heartbeat watermark is measured by messages of its own that pass through the heartbeat queue.
    """

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        database: Database,
        clock: Clock,
        settings: Settings,
        notify: Notifier,
    ) -> None:
        self._notify = notify
        super().__init__(connection, "conductor")
        self._publisher = publisher
        self._database = database
        self._clock = clock
        self._settings = settings
        self._store: Store = make_store(settings)
        self._conductors: dict[str, LocalConductor] = {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="conductor")
        self._running: set[Future[None]] = set()
        self._queue: FairQueue[tuple[str, dict[str, Any]]] = FairQueue(MAX_PENDING_PER_HOST, MAX_PENDING)
        self._heartbeats: dict[str, datetime] = {}
        self._watermark: datetime | None = None
        self._is_publishing_failing = False
        self._heartbeat_lock = threading.Lock()
        self._dropped: Counter[str] = Counter()

    def get_consumers(self, consumer: type[Consumer], channel: Any) -> list[Consumer]:
        broker.declare(channel)
        return [
            consumer([broker.conductor_queue()], callbacks=[self._on_request], accept=["json"], no_ack=True),
            consumer([broker.heartbeat_queue()], callbacks=[self._on_heartbeat], accept=["json"], no_ack=True),
        ]

    def stop(self) -> None:
        """Stop consuming and finish running requests, if the broker accepts replies; hosts retry the others."""
        super().stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait(self._running.copy(), STOP_SECONDS)
        self._publisher.end()

    def publish_watermark(self) -> None:
        """Publish a watermark message behind all heartbeats that are in the queue by now."""
        at = self._clock.now().isoformat()
        try:
            self._publisher.send(
                {"at": at}, routing_key=topology.HEARTBEATS, expiration=topology.HEARTBEAT_TTL_MS / 1000
            )
            self._is_publishing_failing = False
        except errors.Unavailable as error:
            if not self._is_publishing_failing:
                log.warning("Heartbeats are not being received: %s", error)
            self._is_publishing_failing = True

    def write_heartbeats(self) -> int:
        """Write received heartbeats and the watermark to the database; returns the number of hosts."""
        dropped, self._dropped = self._dropped, Counter()
        for host, count in dropped.items():
            log.warning("Host %s exceeds its request queue; dropped %d requests", host, count)
        with self._heartbeat_lock:
            heartbeats, self._heartbeats = self._heartbeats, {}
            until, self._watermark = self._watermark, None
        if not heartbeats and until is None:
            return 0
        try:
            with self._database.transaction() as session:
                liveness.advance_watermark(session, until)
                hosts.record_heartbeats(session, heartbeats)
        except Exception:
            with self._heartbeat_lock:  # keep for the next attempt, merged with later heartbeats
                self._heartbeats = heartbeats | self._heartbeats
                self._watermark = self._watermark or until
            raise
        return len(heartbeats)

    def _on_heartbeat(self, body: Any, message: Message) -> None:
        if message.delivery_info["exchange"]:
            self._sender(message)
        else:  # the default exchange, where no host may write: a watermark of a conductor
            with self._heartbeat_lock:
                self._watermark = datetime.fromisoformat(body["at"])

    def _on_request(self, body: Any, message: Message) -> None:
        host = self._sender(message)
        number = message.properties.get("correlation_id")
        if host is None or not number or not isinstance(body, dict):
            return
        if self._queue.add(host, (number, body)):
            answer = self._pool.submit(self._handle_next)
            self._running.add(answer)
            answer.add_done_callback(self._running.discard)
        else:
            self._dropped[host] += 1

    def _sender(self, message: Message) -> str | None:
        """Return the sending host; any message counts as a heartbeat."""
        host = topology.sender(message.delivery_info["exchange"])
        if host is not None:
            with self._heartbeat_lock:
                self._heartbeats[host] = self._clock.now()
        return host

    def _handle_next(self) -> None:
        host, (number, body) = self._queue.take()
        try:
            reply = self._reply(host, body)
            if reply is not None:
                self._publisher.send(
                    reply, routing_key=topology.reply_queue(host), correlation_id=number, expiration=60
                )
        except errors.Unavailable as error:
            log.warning("A reply to %s could not be sent: %s", host, error)
        except Exception:
            log.exception("A request of %s failed", host)

    def _reply(self, host: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Return the reply, or None when the host should time out and retry."""
        try:
            return {"answer": messages.dispatch(self._conductor(host), body)}
        except errors.Unavailable as error:
            log.warning("Request of %s not handled: %s", host, error)
            return None
        except errors.SixstackError as error:
            return {"error": str(error)}
        except (KeyError, TypeError, ValueError) as error:
            log.warning("Malformed request of %s: %r", host, error)
            return {"error": "Invalid request."}

    def _conductor(self, host: str) -> LocalConductor:
        conductor = self._conductors.get(host)
        if conductor is None:
            settings = replace(self._settings, host_name=host)
            conductor = LocalConductor(
                self._database, self._clock, settings, self._store, notify=self._notify, require_credential=True
            )
            self._conductors[host] = conductor
        return conductor


def main() -> int:
    """Run until SIGTERM."""
    log_context.configure()
    processes.end_with_parent()
    settings = Settings.read({})
    assert settings.broker_url is not None
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    database = Database(settings.database, synchronous=settings.sqlite_synchronous, pool_size=THREADS + 2)
    clock = SystemClock()
    post = Publisher(settings.broker_url, settings.broker_authority, confirmed=False)  # hosts retry
    notify = Notifier(
        settings.host_name if settings.agent else None, LocalNotifier(settings.state), make_remote_clients(settings)[0]
    )
    server = ConductorServer(
        broker.connection(settings.broker_url, settings.broker_authority), post, database, clock, settings, notify
    )
    purge_thread = PurgeThread(database, clock, settings.keep_deleted_days)
    server.start()
    purge_thread.start()
    swept = time.monotonic()
    while not ending.wait(TICK_SECONDS):
        try:
            server.publish_watermark()
            server.write_heartbeats()
            with database.transaction() as session:
                stale = operations.take_stale_queued(session, clock.now())
            for host, numbers in stale.items():
                notify(host, numbers)
            if time.monotonic() - swept >= REAP_SECONDS:
                swept = time.monotonic()
                store = make_store(settings)
                reaper.reap(database, clock.now(), settings.soft_reboot_seconds, store=store, notify=notify)
        except SQLAlchemyError as error:
            log.warning("Database unreachable (%s), retrying", type(error).__name__)
        except Exception:
            log.exception("Conductor loop failed, continuing")
    server.stop()
    purge_thread.stop()
    post.close()
    database.dispose()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
