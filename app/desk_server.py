"""Serves the desks of hosts on other computers: hears over the broker what they ask and report, and answers.

`python -m app.desk_server`, with the settings in SIXSTACK_*; several may run, on several machines. What is lost when
one dies is asked for again. It also tells hosts again of what they have not begun, and sweeps up after silent ones.
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

from app import errors, log_context, processes
from app.clock import Clock, SystemClock
from app.db import Database
from app.settings import Settings
from compute_agent import wire
from compute_agent.desk import LocalDesk
from compute_api import hosts, listening, operations, sweeping
from compute_api.dispatch import broker, names
from compute_api.dispatch.calls import STOP_SECONDS, Listener
from compute_api.dispatch.driver import remote
from compute_api.dispatch.post import Post
from compute_api.dispatch.turns import Turns
from compute_api.nudge import LocalNudge, Nudges
from compute_api.purging import Purging
from image_api.store import Store
from image_api.stores import make_store

log = logging.getLogger("sixstack.desk")

THREADS = 8
PENDING_EACH = 128
"""Requests of a host that may wait; an honest one has no more than its threads. What is beyond is asked again."""
PENDING = 4096
"""Requests that are taken from the broker; the rest waits there."""
BEAT_SECONDS = 1.0
SWEEP_SECONDS = 5.0


class DeskServer(Listener):
    """Answers requests in a few threads. Who asks is told by the exchange that the request came by.

    Whether hosts are heard it knows from hearing itself: what it says goes the way of their heartbeats.
    """

    def __init__(
        self, connection: Connection, post: Post, database: Database, clock: Clock, settings: Settings, nudge: Nudges
    ) -> None:
        self._nudge = nudge
        super().__init__(connection, "desk")
        self._post = post
        self._database = database
        self._clock = clock
        self._settings = settings
        self._store: Store = make_store(settings)
        self._desks: dict[str, LocalDesk] = {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="desk")
        self._answering: set[Future[None]] = set()
        self._turns: Turns[tuple[str, dict[str, Any]]] = Turns(PENDING_EACH, PENDING)
        self._heard: dict[str, datetime] = {}
        self._heard_until: datetime | None = None
        self._mute = False
        self._hearing = threading.Lock()
        self._passed_over: Counter[str] = Counter()

    def get_consumers(self, consumer: type[Consumer], channel: Any) -> list[Consumer]:
        broker.declare(channel)
        return [
            consumer([broker.desk_queue()], callbacks=[self._hear], accept=["json"], no_ack=True),
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
            self._post.send({"at": at}, routing_key=names.HEARTBEATS, expiration=names.HEARTBEAT_TTL_MS / 1000)
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
                listening.heard(session, until)
                hosts.seen_all(session, heard)
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
        host = names.sender(message.delivery_info["exchange"])
        if host is not None:
            with self._hearing:
                self._heard[host] = self._clock.now()
        return host

    def _answer_next(self) -> None:
        host, (number, body) = self._turns.take()
        try:
            reply = self._reply(host, body)
            if reply is not None:
                self._post.send(reply, routing_key=names.answers(host), correlation_id=number, expiration=60)
        except errors.Unavailable as error:
            log.warning("An answer to %s could not be sent: %s", host, error)
        except Exception:
            log.exception("A request of %s could not be answered", host)

    def _reply(self, host: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """None where only silence is right: the host asks again."""
        try:
            return {"answer": wire.carry_out(self._desk(host), body)}
        except errors.SixstackError as error:
            return {"error": str(error)}
        except (KeyError, TypeError, ValueError) as error:
            log.warning("%s asks for what there is not: %r", host, error)
            return {"error": "There is no such request."}
        except SQLAlchemyError as error:
            log.warning("%s waits for the database: %s", host, type(error).__name__)
            return None

    def _desk(self, host: str) -> LocalDesk:
        desk = self._desks.get(host)
        if desk is None:
            settings = replace(self._settings, host_name=host)
            desk = LocalDesk(self._database, self._clock, settings, self._store, nudge=self._nudge, added=True)
            self._desks[host] = desk
        return desk


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
    post = Post(settings.broker_url, settings.broker_authority, confirmed=False)  # hosts ask again
    nudge = Nudges(settings.host_name if settings.agent else None, LocalNudge(settings.state), remote(settings)[0])
    server = DeskServer(
        broker.connection(settings.broker_url, settings.broker_authority), post, database, clock, settings, nudge
    )
    purging = Purging(database, clock, settings.keep_deleted_days)
    server.start()
    purging.start()
    swept = time.monotonic()
    while not ending.wait(BEAT_SECONDS):
        try:
            server.say()
            server.write_heartbeats()
            with database.transaction() as session:
                stale = operations.stale_queued(session, clock.now())
            for host, numbers in stale.items():
                nudge(host, numbers)
            if time.monotonic() - swept >= SWEEP_SECONDS:
                swept = time.monotonic()
                store = make_store(settings)
                sweeping.sweep(database, clock.now(), settings.soft_reboot_seconds, store=store, nudge=nudge)
        except SQLAlchemyError as error:
            log.warning("The database does not answer (%s); trying again", type(error).__name__)
        except Exception:
            log.exception("The desk goes on after a failure")
    server.stop()
    purging.stop()
    post.close()
    database.dispose()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
