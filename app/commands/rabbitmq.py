"""Client of RabbitMQ's management API: broker users of hosts and their permissions."""

from typing import Any
from urllib.parse import quote, urlsplit

import urllib3

from app.core.errors import OperatorError
from compute_api.rpc import topology

TIMEOUT_SECONDS = 20.0
ADVICE = "Set SIXSTACK_BROKER_MANAGEMENT_URL to http://USER:PASSWORD@HOST:15672 of an administrator."


class Management:
    """Client of the management plugin. Raises OperatorError when it is unreachable or rejects a request."""

    def __init__(self, url: str | None, broker_url: str) -> None:
        if url is None:
            raise OperatorError(f"RabbitMQ's management API is needed. {ADVICE}")
        parts = urlsplit(url)
        self._base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/api"
        self._headers = urllib3.make_headers(basic_auth=f"{parts.username}:{parts.password}")
        path = urlsplit(broker_url).path.removeprefix("/")
        self._vhost = quote(path if path not in ("", "/") else "/", safe="")
        self._http = urllib3.PoolManager(timeout=TIMEOUT_SECONDS, retries=False)

    def add_user(self, host: str, password: str) -> None:
        """Create or replace the host's user, with this password and the permissions of a host."""
        user = topology.broker_user(host)
        self._call("PUT", f"/users/{user}", {"password": password, "tags": ""})
        self._call("PUT", f"/permissions/{self._vhost}/{user}", topology.permissions(host))
        # Topic exchanges also check permissions for routing keys.
        allowed = rf"^({topology.KEY_CONDUCTOR}|{topology.KEY_HEARTBEAT}|{topology.KEY_REPLY}\..*)$"
        topic = {"exchange": topology.host_exchange(host), "write": allowed, "read": "^$"}
        self._call("PUT", f"/topic-permissions/{self._vhost}/{user}", topic)

    def remove_user(self, host: str) -> bool:
        """Delete the user, which closes its connections; False when there is none."""
        return self._call("DELETE", f"/users/{topology.broker_user(host)}", None, also=(404,)) != 404

    def _call(self, method: str, path: str, body: Any, also: tuple[int, ...] = ()) -> int:
        try:
            answer = self._http.request(method, self._base + path, json=body, headers=self._headers)
        except urllib3.exceptions.HTTPError as error:
            raise OperatorError(
                f"RabbitMQ's management API does not answer at {self._base}: {error}. {ADVICE}"
            ) from None
        if answer.status == 401:
            raise OperatorError(f"RabbitMQ's management API rejects the user or password. {ADVICE}")
        if answer.status >= 300 and answer.status not in also:
            raise OperatorError(f"RabbitMQ's management API answered {answer.status} to {method} {path}.")
        return int(answer.status)
