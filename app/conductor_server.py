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
"""Requests of a host that may wait; an honest one has no more than its threads. What is beyond is asked again."""
MAX_PENDING = 4096
"""Requests that are taken from the broker; the rest waits there."""
TICK_SECONDS = 1.0
REAP_SECONDS = 5.0


class ConductorServer(ConsumerThread):
    """Answers requests in a few threads. Who asks is told by the exchange that the request came by.

    Whether hosts are heard it knows from hearing itself: what it says goes the way of their heartbeats.
    """

    def __init__(
        self,
        connection: Connection,
        post: Publisher,
        database: Database,
        clock: Clock,
        settings: Settings,
        notify: Notifier,
    ) -> None:
        self._notify = notify
        super().__init__(connection, "conductor")
        self._post = post
        self._database = database
        self._clock = clock
        self._settings = settings
        self._store: Store = make_store(settings)
        self._conductors: dict[str, LocalConductor] = {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="conductor")
        self._answering: set[Future[None]] = set()
        self._turns: FairQueue[tuple[str, dict[str, Any]]] = FairQueue(MAX_PENDING_PER_HOST, MAX_PENDING)
        self._heard: dict[str, datetime] = {}
        self._heard_until: datetime | None = None
        self._mute = False
        self._hearing = threading.Lock()
        self._passed_over: Counter[str] = Counter()

    def get_consumers(self, consumer: type[Consumer], channel: Any) -> list[Consumer]:
        broker.declare(channel)
        return [
            consumer([broker.conductor_queue()], callbacks=[self._hear], accept=["json"], no_ack=True),
            consumer([broker.heartbeat_queue()], callbacks=[self._beat], accept=["json"], no_ack=True),
        ]

    def stop(self) -> None:
        """Hear nothing more, and answer what was begun, if the broker takes it soon: hosts ask again."""
        super().stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait(self._answering.copy(), STOP_SECONDS)
        self._post.end()

    def say(self) -> None:
        """Say something behind all that hosts have said by now."""
        at = self._clock.now().isoformat()
        try:
            self._post.send({"at": at}, routing_key=topology.HEARTBEATS, expiration=topology.HEARTBEAT_TTL_MS / 1000)
            self._mute = False
        except errors.Unavailable as error:
            if not self._mute:
                log.warning("Hosts are not heard: %s", error)
            self._mute = True

    def write_heartbeats(self) -> int:
        """Write down who was heard of since the last time, and until when all were heard; returns how many."""
        passed_over, self._passed_over = self._passed_over, Counter()
        for host, count in passed_over.items():
            log.warning("%s asks more than can be answered; %d requests were passed over", host, count)
        with self._hearing:
            heard, self._heard = self._heard, {}
            until, self._heard_until = self._heard_until, None
        if not heard and until is None:
            return 0
        try:
            with self._database.transaction() as session:
                liveness.advance_watermark(session, until)
                hosts.record_heartbeats(session, heard)
        except Exception:
            with self._hearing:  # said again, with what was heard meanwhile
                self._heard = heard | self._heard
                self._heard_until = self._heard_until or until
            raise
        return len(heard)

    def _beat(self, body: Any, message: Message) -> None:
        if message.delivery_info["exchange"]:
            self._sender(message)
        else:  # where no host may write: a desk has said it
            with self._hearing:
                self._heard_until = datetime.fromisoformat(body["at"])

    def _hear(self, body: Any, message: Message) -> None:
        host = self._sender(message)
        number = message.properties.get("correlation_id")
        if host is None or not number or not isinstance(body, dict):
            return
        if self._turns.add(host, (number, body)):
            answer = self._pool.submit(self._answer_next)
            self._answering.add(answer)
            answer.add_done_callback(self._answering.discard)
        else:
            self._passed_over[host] += 1

    def _sender(self, message: Message) -> str | None:
        """The host that says something, which is a sign of life whatever it says."""
        host = topology.sender(message.delivery_info["exchange"])
        if host is not None:
            with self._hearing:
                self._heard[host] = self._clock.now()
        return host

    def _answer_next(self) -> None:
        host, (number, body) = self._turns.take()
        try:
            reply = self._reply(host, body)
            if reply is not None:
                self._post.send(reply, routing_key=topology.reply_queue(host), correlation_id=number, expiration=60)
        except errors.Unavailable as error:
            log.warning("An answer to %s could not be sent: %s", host, error)
        except Exception:
            log.exception("A request of %s could not be answered", host)

    def _reply(self, host: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """None where only silence is right: the host asks again."""
        try:
            return {"answer": messages.dispatch(self._conductor(host), body)}
        except errors.Unavailable as error:
            log.warning("Request of %s not answered: %s", host, error)
            return None
        except errors.SixstackError as error:
            return {"error": str(error)}
        except (KeyError, TypeError, ValueError) as error:
            log.warning("%s asks for what there is not: %r", host, error)
            return {"error": "There is no such request."}

    def _conductor(self, host: str) -> LocalConductor:
        conductor = self._conductors.get(host)
        if conductor is None:
            settings = replace(self._settings, host_name=host)
            conductor = LocalConductor(
                self._database, self._clock, settings, self._store, notify=self._notify, added=True
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
    post = Publisher(settings.broker_url, settings.broker_authority, confirmed=False)  # hosts ask again
    notify = Notifier(
        settings.host_name if settings.agent else None, LocalNotifier(settings.state), make_remote_clients(settings)[0]
    )
    server = ConductorServer(
        broker.connection(settings.broker_url, settings.broker_authority), post, database, clock, settings, notify
    )
    purging = PurgeThread(database, clock, settings.keep_deleted_days)
    server.start()
    purging.start()
    swept = time.monotonic()
    while not ending.wait(TICK_SECONDS):
        try:
            server.say()
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
            log.warning("The database does not answer (%s); trying again", type(error).__name__)
        except Exception:
            log.exception("Conductor loop failed, continuing")
    server.stop()
    purging.stop()
    post.close()
    database.dispose()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
