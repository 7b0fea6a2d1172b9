"""Mutation of requests: unusual values, types, nesting, encodings, numbers, headers."""

import copy
import json
import random
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

DIGITS = "9" * 5000
NESTED: Any = "end"
for _ in range(300):
    NESTED = [NESTED]

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**31 - 1, 2**63, 2**63 - 1, -(2**63), 2**64, 10**30, 1.5, 1e308, -0.0,
    "", " ", "\t\n", "a\0b", "\u202e\U0001f600", "é" * 300, "\u0661\u00b2", "²", "a" * 256, "x" * 70_000, DIGITS,
    "-5", "--5", "+5", "1_000", "1e9", "0x10", "NaN", "Infinity", "null", "true", "none", "None",
    "../../etc/passwd", "%00", "%s%n", "' OR 1=1 --", '"', "\\", "{}", "[]", "${x}", "<b>", "a,b", "a:b", "=", "&",
    "::1", "fe80::1%x", "2001:db8::/129", "2001:db8::/0", "0.0.0.0/0", "02:00:00:00:00:00", "ff:ff:ff:ff:ff:ff",
    "9999-12-31T23:59:59-14:00", "0000-00-00", "0001-01-01T00:00:00+14:00", "2026-02-30", "12:00",
    "in:a,b", "gt:5", "gte:", "eq:", "neq:²", "like:%", "00000000-0000-0000-0000-000000000000", "default", "admin",
    "http://[::1", "http://\u202e/", "file:///etc/passwd", "http://a:b@c:99999/", "a*a*a*b", "(a+)+$", "(", "[",
    [], {}, [[]], [None], [{}], {"a": None}, {"": ""}, {"a\0": 1}, ["a"] * 1000, {"x": {"x": {"x": []}}}, NESTED,
)  # fmt: skip
"""Values for any place."""

QUERY = (
    "limit", "marker", "offset", "sort_key", "sort_dir", "sort", "page_reverse", "fields", "name", "display_name", "ip",
    "ip6", "status", "all_tenants", "changes-since", "changes-before", "tags", "tags-any", "not-tags", "not-tags-any",
    "metadata", "power_state", "deleted", "host", "hostname", "locked", "created_at", "updated_at", "size_min",
    "size_max", "visibility", "member_status", "owner", "os_hash_value", "tag", "protected", "minRam", "minDisk",
    "is_public", "detailed", "start", "end", "tenant_id", "project_id", "user_id", "domain_id", "id", "mtu", "shared",
    "fixed_ips", "device_id", "mac_address", "enabled", "parent_id", "include_names", "effective", "scope.system",
    "name__contains", "name__", "password_expires_at", "reserved", "with_servers", "binary",
    "delete_info", "nocatalog", "allow_expired", "subtree_as_list", "parents_as_ids", "usage", "availability_zone",
)  # fmt: skip

HEADERS = (
    "OpenStack-API-Version", "X-OpenStack-Nova-API-Version", "Content-Type", "Accept", "X-Subject-Token", "Range",
    "Content-Range", "If-None-Match", "User-Agent", "X-Forwarded-Proto", "X-Forwarded-Host", "Host",
    "X-OpenStack-Request-ID", "X-HTTP-Method-Override", "Accept-Encoding", "X-Image-Meta-Store", "Content-Encoding",
    "X-OpenStack-Image-Size", "X-Service-Token", "X-Auth-Token", "Forwarded", "Expect",
)  # fmt: skip

VALUES_OF_HEADERS = (
    "", " ", "compute 2.1", "compute latest", "compute 2.", "compute 2.²", f"compute 2.{DIGITS}", "compute 9.9",
    "volume 3.99", "compute", ",,,", "bytes=0-", "bytes=5-2", "bytes=-0", f"bytes={DIGITS}-",
    "bytes=0-0,5-9", "bytes */*", "*",
    "W/\"x\"",    "application/json; charset=utf-16", "application/octet-stream", "multipart/form-data", "text/plain",
    "application/openstack-images-v2.1-json-patch", "application/openstack-images-v2.0-json-patch",
    "application/x-www-form-urlencoded", "python-glanceclient", "gzip", "-1", DIGITS, "a" * 9000, "\xff\xfe", "é",
    "localhost:x",    "[::1", "gAAAAA" + "A" * 300, "100-continue",
)  # fmt: skip

_PLACEHOLDER = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")


@dataclass
class Request:
    """One request. `data` stands for a body that is no JSON."""

    method: str
    path: str
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    data: bytes | None = None

    @property
    def url(self) -> str:
        return self.path + ("?" + urlencode(self.query) if self.query else "")

    @property
    def content(self) -> bytes | None:
        if self.data is not None:
            return self.data
        return None if self.body is None else json.dumps(self.body).encode("utf-8", "surrogatepass")

    def curl(self, base: str = "http://127.0.0.1:8774") -> str:
        """The request as a command; the token is a variable."""
        words = ["curl", "-i", "-X", self.method]
        for name, value in self.headers.items():
            words += ["-H", f"{name}: {value}"]
        line = " ".join(map(shlex.quote, words)) + ' -H "X-Auth-Token: $TOKEN"'
        if (content := self.content) is not None:
            line += " --data-binary " + shlex.quote(content.decode("utf-8", "backslashreplace"))
        return f"{line} {shlex.quote(base + self.url)}"


class Mutator:
    """Makes requests of the corpus' valid ones. The same seed makes the same choices."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.known: dict[str, list[str]] = {}

    def learn(self, kind: str, id_: str) -> None:
        """An id that a later request may name."""
        ids = self.known.setdefault(kind, [])
        ids.append(id_)
        del ids[:-30]

    def forget(self) -> None:
        self.known.clear()

    def make(self, seed: dict[str, Any], *, valid: bool) -> Request:
        """A request of the corpus; unless `valid`, with one to three things wrong with it."""
        headers = {"Content-Type": seed["type"]} if seed.get("type") else {}
        if "/compute/" in seed["rule"] and self.random.random() < 0.7:
            headers["OpenStack-API-Version"] = f"compute 2.{self.random.randint(1, 96)}"
        request = Request(
            seed["method"],
            self._path(seed["rule"]),
            [],
            headers,
            self._with_ids(copy.deepcopy(seed["body"])),
        )
        if request.body is not None and "Content-Type" not in headers:
            headers["Content-Type"] = "application/json"
        if valid:
            return request
        ways: list[Callable[[Request], None]] = [self._break_query, self._break_header, self._break_path]
        ways += [self._break_body] * 6 if request.body is not None else [self._break_query] * 6
        ways.append(self._break_bytes)
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            self.random.choice(ways)(request)
        return request

    def _path(self, rule: str) -> str:
        """The rule's path, with ids of the kind that the part before it names."""
        parts: list[str] = []
        for part in rule.split("/"):
            if found := _PLACEHOLDER.search(part):
                kinds = (parts[-1].rstrip("s").replace("-", "_"), found[1].removesuffix("_id"))
                part = _PLACEHOLDER.sub(quote(self._id(*kinds), safe=""), part)
            parts.append(part)
        return "/".join(parts)

    def _id(self, *kinds: str) -> str:
        """A known id or name of the first of the kinds that there are any of."""
        for kind in kinds:
            if ids := self.known.get(kind):
                return self.random.choice(ids[-8:])
        if self.random.random() < 0.5:
            return self.random.choice(("x", "name", "default", "fake-host", "k", "1", "nova", "public"))
        return f"{self.random.getrandbits(128):032x}"

    def _with_ids(self, value: Any) -> Any:
        if isinstance(value, str) and value[:1] == "{" and value[-1:] == "}" and value[1:-1].isidentifier():
            return self._id(value[1:-1])
        if isinstance(value, list):
            return [self._with_ids(each) for each in value]
        if isinstance(value, dict):
            return {key: self._with_ids(each) for key, each in value.items()}
        return value

    def _odd(self) -> Any:
        return copy.deepcopy(self.random.choice(ODD))

    def _odd_text(self) -> str:
        value = self._odd()
        text = value if isinstance(value, str) else json.dumps(value)
        return text[:6000]

    def _break_query(self, request: Request) -> None:
        if request.query and self.random.random() < 0.5:
            at = self.random.randrange(len(request.query))
            request.query[at] = (request.query[at][0], self._odd_text())
            return
        for _ in range(self.random.choice((1, 1, 2))):
            name = self.random.choice(QUERY[:13] if self.random.random() < 0.5 else QUERY)
            if self.random.random() < 0.05:
                name = self._odd_text()[:200]
            request.query.append((name, self._odd_text()))

    def _break_header(self, request: Request) -> None:
        name = self.random.choice(HEADERS)
        value = self.random.choice(VALUES_OF_HEADERS)
        if name == "OpenStack-API-Version" and self.random.random() < 0.5:
            value = f"compute 2.{self.random.randint(1, 97)}"
        request.headers[name] = value

    def _break_path(self, request: Request) -> None:
        parts = request.path.split("/")
        at = self.random.randrange(3, len(parts)) if len(parts) > 3 else len(parts) - 1
        parts[at] = quote(self._odd_text()[:300], safe="")
        request.path = "/".join(parts)

    def _break_bytes(self, request: Request) -> None:
        content = bytearray(request.content or b'{"x": 1}')
        match self.random.randrange(5):
            case 0:
                del content[self.random.randrange(len(content) + 1) :]
            case 1:
                content[self.random.randrange(len(content))] = self.random.randrange(256)
            case 2:
                at = self.random.randrange(len(content))
                content[at:at] = self.random.choice((b"\xff\xfe", b"\0", b"\\ud800", b"[" * 3000, b"1e999", b"NaN"))
            case 3:
                content = bytearray(b"[" * self.random.choice((90, 300, 2000)) + b"1" + b"]" * 2000)
            case _:
                content = bytearray(self.random.randbytes(self.random.randrange(2000)))
        request.data = bytes(content)
        request.headers.setdefault("Content-Type", "application/json")

    def _break_body(self, request: Request) -> None:
        places: list[tuple[Any, Any]] = []
        _places(request.body, places)
        if not places or self.random.random() < 0.03:
            request.body = self._odd()
            return
        container, key = self.random.choice(places)
        match self.random.randrange(10):
            case 0 | 1:
                del container[key]
            case 2 if isinstance(container, dict):
                container[self._odd_text()[:300]] = self._odd()
            case 3:
                container[key] = [container[key], container[key]]
            case 4:
                container[key] = {"x": container[key]}
            case 5 if isinstance(container[key], str):
                container[key] = container[key] + self._odd_text()[:500]
            case _:
                container[key] = self._odd()


def _places(value: Any, found: list[tuple[Any, Any]]) -> None:
    """Every place in the document that can be changed: (container, key)."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(entries):
        found.append((value, key))
        if len(found) < 500:
            _places(inner, found)
