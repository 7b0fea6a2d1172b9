"""Dispatch components of the benchmarks: RabbitMQ, conductor and simulated hosts."""

import base64
import hashlib
import json
import os
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from app.core.settings import Settings
from benchmarks import cloud
from compute_api.rpc import broker, topology
from tests.rabbitmq import RabbitMQ

Credentials = Sequence[tuple[str, str]]
"""Name and broker URL of each host."""


def with_broker(settings: Settings, made: RabbitMQ) -> Settings:
    """Return settings with the broker and without a local agent."""
    return replace(settings, broker_url=made.url, broker_management_url=made.management_url, agent=False)


def add_hosts(made: RabbitMQ, hosts: Sequence[str]) -> Credentials:
    """Register many hosts with the broker as `sixstack host add` does: queues, exchanges and users."""
    with broker.connection(made.url) as connection:
        channel = connection.channel()
        for host in hosts:
            broker.declare_host(channel, host)
    passwords = {host: secrets.token_hex(16) for host in hosts}
    definitions = {
        "users": [
            {
                "name": topology.broker_user(host),
                "password_hash": _hashed(password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
            for host, password in passwords.items()
        ],
        "permissions": [
            {"user": topology.broker_user(host), "vhost": "/", **topology.permissions(host)} for host in hosts
        ],
    }
    parts = urlsplit(made.management_url)
    login = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    asked = urllib.request.Request(
        f"http://{parts.hostname}:{parts.port}/api/definitions",
        json.dumps(definitions).encode(),
        {"Authorization": f"Basic {login}", "Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(asked, timeout=300):
        pass
    at = urlsplit(made.url)
    return [
        (host, f"amqp://{topology.broker_user(host)}:{passwords[host]}@{at.hostname}:{at.port}//") for host in hosts
    ]


def _hashed(password: str) -> str:
    """Hash a password in RabbitMQ's format, salted SHA-256."""
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


@contextmanager
def conductor(settings: Settings) -> Iterator[int]:
    """Run the conductor; yields its pid."""
    command = [sys.executable, "-m", "app.conductor_server"]
    running = subprocess.Popen(command, env={**os.environ, **settings.environ()}, cwd=cloud.ROOT)
    try:
        yield running.pid
        assert running.poll() is None, f"the conductor ended with {running.returncode}"
    finally:
        running.terminate()
        running.wait(30)


class Fakes:
    """A process of simulated hosts."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.answered: list[float] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        """Stop the hosts; `answered` then contains the response time of each of their requests, in seconds."""
        said, _nothing = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, "the fake hosts have failed"
        self.answered = json.loads(said.splitlines()[-1])


@contextmanager
def fakes(hosts: Credentials, *, poll_seconds: float) -> Iterator[Fakes]:
    """Run simulated hosts; yields once they are connected. `poll_seconds` 0 disables polling."""
    command = [sys.executable, "-m", "benchmarks.fleet.fakes"]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cloud.ROOT)
    assert running.stdin is not None
    assert running.stdout is not None
    try:
        running.stdin.write(json.dumps({"hosts": hosts, "look_seconds": poll_seconds}) + "\n")
        running.stdin.flush()
        assert running.stdout.readline() == "ready\n", "the fake hosts could not connect"
        made = Fakes(running)
        yield made
        made.end()
    finally:
        if running.poll() is None:
            running.terminate()
            running.wait(30)
