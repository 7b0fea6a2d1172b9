"""Many hosts in one process, as light as can be: the broker and the control plane cannot tell them from real ones.

`python -m benchmarks.fleet.fakes` reads a JSON list of credentials on its standard input, connects with each, and does
what an agent does, but for the machines: it is told of operations, asks for them and reports them done, says that it
lives, and asks now and then what should be there. Says `ready` when all are connected. Ends with its standard input.
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
    """Something a host does again and again."""

    at: float
    number: int
    every: float = field(compare=False)
    act: Callable[[], None] = field(compare=False)


class FakeHost:
    """One connection, three queues to read from, one exchange to write to."""

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
        """Deal with everything that has arrived."""
        try:
            while True:
                self.connection.drain_events(timeout=0)
        except TimeoutError:
            return

    def beat(self) -> None:
        """This host is alive."""
        self._say(topology.KEY_HEARTBEAT, {})

    def look(self) -> None:
        """What an agent asks from time to time."""
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
    """Serve until the standard input ends; then say how long the control plane took to answer, in seconds."""
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
    """Evenly over time, as agents that were started one after the other."""
    now = time.monotonic()
    for at, host in enumerate(hosts):
        yield Due(now + HEARTBEAT_SECONDS * at / len(hosts), 2 * at, HEARTBEAT_SECONDS, host.beat)
        if poll_seconds:
            yield Due(now + poll_seconds * at / len(hosts), 2 * at + 1, poll_seconds, host.look)


if __name__ == "__main__":
    sys.exit(main())
