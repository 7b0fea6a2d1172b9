"""Simulated hosts: many in one process, indistinguishable from real ones by broker and control plane.

`python -m benchmarks.fleet.fakes` reads a JSON list of credentials from standard input, connects with each, and does
what an agent does except for running machines: receives, claims and completes operations, sends heartbeats, and polls
the desired state. Prints `ready` when all are connected; exits at the end of standard input.
"""

import json
import selectors
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp

from compute_agent.agent import HEARTBEAT_SECONDS
from compute_api.rpc import topology

Answered = Callable[[Any], None]


@dataclass(order=True)
class Due:
    """A periodic action of a host."""

    at: float
    number: int
    every: float = field(compare=False)
    act: Callable[[], None] = field(compare=False)


class FakeHost:
    """A simulated host: one connection, three queues and one exchange."""

    def __init__(self, name: str, url: str) -> None:
        parts = urlsplit(url)
        self.name = name
        self.connection = amqp.Connection(
            f"{parts.hostname}:{parts.port}", unquote(parts.username or ""), unquote(parts.password or ""), heartbeat=0
        )
        self.connection.connect()
        self._channel = self.connection.channel()
        self._channel.basic_qos(0, 1, False)
        self._channel.basic_consume(topology.task_queue(name), callback=self._told)
        self._channel.basic_consume(topology.reply_queue(name), callback=self._answered, no_ack=True)
        self._channel.basic_consume(topology.request_queue(name), no_ack=True)
        self._numbers = count()
        self._waiting: dict[str, tuple[float, Answered]] = {}
        self.took: list[float] = []

    def read(self) -> None:
        """Process all messages that have arrived."""
        try:
            while True:
                self.connection.drain_events(timeout=0)
        except TimeoutError:
            return

    def beat(self) -> None:
        """Send a heartbeat."""
        self._say(topology.KEY_HEARTBEAT, {})

    def look(self) -> None:
        """Send the periodic requests of an agent."""
        self._ask("host_state", {}, lambda _answer: None)

    def _told(self, message: Any) -> None:
        operation_id = json.loads(message.body)[0][0]

        def claimed(work: Any) -> None:
            if work is None:
                over(None)
            else:
                self._ask("report", {"operation_id": operation_id, "result": {}}, over)

        def over(_answer: Any) -> None:
            self._channel.basic_ack(message.delivery_tag)

        self._ask("claim", {"operation_id": operation_id}, claimed)

    def _ask(self, request: str, arguments: dict[str, Any], answered: Answered) -> None:
        number = str(next(self._numbers))
        self._waiting[number] = (time.perf_counter(), answered)
        self._say(topology.KEY_CONDUCTOR, {"ask": request, **arguments}, correlation_id=number)

    def _answered(self, message: Any) -> None:
        since, answered = self._waiting.pop(message.properties["correlation_id"])
        self.took.append(time.perf_counter() - since)
        answer = json.loads(message.body)
        if "error" in answer:
            raise SystemExit(f"{self.name}: {answer}")
        answered(answer["answer"])

    def _say(self, key: str, body: dict[str, Any], **properties: Any) -> None:
        message = amqp.Message(
            json.dumps(body), content_type="application/json", content_encoding="utf-8", **properties
        )
        self._channel.basic_publish(message, topology.host_exchange(self.name), key)


def main() -> int:
    """Run until the end of standard input, then print the response times of the control plane in seconds."""
    asked = json.loads(sys.stdin.readline())
    hosts = [FakeHost(name, url) for name, url in asked["hosts"]]
    print("ready", flush=True)
    due = list(_schedule(hosts, asked["look_seconds"]))
    heapify(due)
    with selectors.DefaultSelector() as ready:
        ready.register(sys.stdin, selectors.EVENT_READ)
        for host in hosts:
            ready.register(host.connection.transport.sock, selectors.EVENT_READ, host)
        while True:
            for key, _events in ready.select(max(due[0].at - time.monotonic(), 0)):
                if key.data is None:
                    print(json.dumps([took for host in hosts for took in host.took]))
                    return 0
                key.data.read()
            while due[0].at <= time.monotonic():
                now = heappop(due)
                now.act()
                heappush(due, Due(now.at + now.every, now.number, now.every, now.act))


def _schedule(hosts: list[FakeHost], poll_seconds: float) -> Iterator[Due]:
    """Spread the periodic actions of hosts evenly over time."""
    now = time.monotonic()
    for at, host in enumerate(hosts):
        yield Due(now + HEARTBEAT_SECONDS * at / len(hosts), 2 * at, HEARTBEAT_SECONDS, host.beat)
        if poll_seconds:
            yield Due(now + poll_seconds * at / len(hosts), 2 * at + 1, poll_seconds, host.look)


if __name__ == "__main__":
    sys.exit(main())
