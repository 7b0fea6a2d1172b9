"""Users: create servers, apply random actions to them and delete them; failed requests are repeated later."""

import random
import threading
import time
from collections import Counter
from typing import Any

from keystoneauth1.exceptions import ClientException
from openstack.connection import Connection
from openstack.exceptions import SDKException

from tests.contract.conftest import Cloud

ACTIONS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("stop", {"os-stop": None}, {"ACTIVE"}),
    ("start", {"os-start": None}, {"SHUTOFF"}),
    ("reboot hard", {"reboot": {"type": "HARD"}}, {"ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED"}),
    ("pause", {"pause": None}, {"ACTIVE"}),
    ("unpause", {"unpause": None}, {"PAUSED"}),
    ("suspend", {"suspend": None}, {"ACTIVE"}),
    ("resume", {"resume": None}, {"SUSPENDED"}),
    ("snapshot", {"createImage": {"name": "chaos"}}, {"ACTIVE", "SHUTOFF", "PAUSED"}),
    ("shelve", {"shelve": None}, {"ACTIVE", "SHUTOFF"}),
    ("unshelve", {"unshelve": None}, {"SHELVED_OFFLOADED"}),
    ("resize", {"resize": {"flavorRef": "{larger}"}}, {"ACTIVE", "SHUTOFF"}),
    ("confirm resize", {"confirmResize": None}, {"VERIFY_RESIZE"}),
    ("revert resize", {"revertResize": None}, {"VERIFY_RESIZE"}),
    ("rebuild", {"rebuild": {"imageRef": "{image}"}}, {"ACTIVE", "SHUTOFF"}),
]
ANSWERS = {200, 202, 204, 400, 403, 404, 409, 413, 429, 503}
"""Statuses that are correct while faults are injected."""


class User(threading.Thread):
    """One client with servers of its own; `problems` has answers that no fault excuses."""

    def __init__(self, cloud: Cloud, number: int, seed: int) -> None:
        super().__init__(name=f"user-{number}", daemon=True)
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self._cloud = cloud
        self._number = number
        self._random = random.Random(seed * 1000 + number)
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._made = 0

    def stop(self) -> None:
        """End after the current request."""
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._live_once()
            except (SDKException, ClientException, OSError) as error:
                self.counts[f"no answer ({type(error).__name__})"] += 1
                self._connection = None
                self._stopping.wait(1)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        if self._connection is None:
            self._connection = self._cloud.connect()
            self._names = {
                "{image}": self._connection.get_image("tiny").id,
                "{flavor}": self._connection.get_flavor("tiny").id,
                "{larger}": self._connection.get_flavor("small").id,
            }
        headers = {"OpenStack-API-Version": "compute 2.90"}
        options = {"json": body} if body is not None else {}
        answer = self._connection.session.request(
            path,
            method,
            endpoint_filter={"service_type": "compute"},
            raise_exc=False,
            connect_retries=0,
            headers=headers,
            timeout=60,
            **options,
        )
        if answer.status_code not in ANSWERS:
            self.problems.append(f"{method} {path} {body}: {answer.status_code} {answer.text[:300]}")
        return answer

    def _live_once(self) -> None:
        servers = self._own()
        if len(servers) < 3 and self._random.random() < 0.5:
            self._create()
            return
        if not servers:
            self._stopping.wait(0.2)
            return
        server = self._random.choice(servers)
        if server["status"] == "ERROR" or self._random.random() < 0.12:
            self.counts["delete"] += 1
            self._call("DELETE", f"/servers/{server['id']}")
            return
        fitting = [(name, body) for name, body, states in ACTIONS if server["status"] in states]
        if server["OS-EXT-STS:task_state"] is None and fitting:
            name, body = self._random.choice(fitting)
            answer = self._call("POST", f"/servers/{server['id']}/action", self._filled(body))
            self.counts[name if answer.status_code == 202 else f"{name} refused ({answer.status_code})"] += 1
        self._stopping.wait(self._random.uniform(0.1, 1.5))

    def _filled(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            key: self._filled(value) if isinstance(value, dict) else self._names.get(value, value)
            for key, value in body.items()
        }

    def _own(self) -> list[dict[str, Any]]:
        answer = self._call("GET", f"/servers/detail?name=^u{self._number}-")
        return list(answer.json()["servers"]) if answer.status_code == 200 else []

    def _create(self) -> None:
        self._made += 1
        server = {
            "name": f"u{self._number}-{self._made}-{time.monotonic_ns()}",
            "imageRef": "{image}",
            "flavorRef": "{flavor}",
            "networks": "auto",
        }
        self._connection or self._own()
        answer = self._call("POST", "/servers", {"server": self._filled(server)})
        self.counts["create" if answer.status_code == 202 else f"create refused ({answer.status_code})"] += 1
