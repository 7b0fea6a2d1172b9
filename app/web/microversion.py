"""Microversion negotiation: request and response headers, supported ranges.

https://docs.openstack.org/api-guide/compute/microversions.html
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from flask import Blueprint, Response, g, request

from app.core import errors


class Version(NamedTuple):
    """A microversion, ordered numerically: 2.9 < 2.10."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


def v(text: str) -> Version:
    """Parse a microversion such as "2.19"."""
    major, _, minor = text.partition(".")
    return Version(int(major), int(minor))


@dataclass(frozen=True, slots=True)
class Microversions:
    """The supported range of one service. `service` is its name in the header; `legacy_header` is an older header."""

    service: str
    minimum: Version
    maximum: Version
    legacy_header: str | None = None
    aliases: tuple[str, ...] = ()

    def install(self, blueprint: Blueprint) -> None:
        """Set `g.version` before each request of the blueprint; `request_id` adds the response headers."""
        blueprint.before_request(self._set_version)

    def _set_version(self) -> None:
        g.microversions = self
        g.version = self.minimum
        g.version = self._requested_version()

    def _requested_version(self) -> Version:
        text = self._header_value()
        if text is None:
            return self.minimum
        if text == "latest":
            return self.maximum
        if not re.fullmatch(r"[1-9][0-9]{0,8}\.(0|[1-9][0-9]{0,8})", text):
            raise errors.BadRequest(
                f"API Version String {text[:40]} is of invalid format. Must be of format MajorNum.MinorNum."
            )
        version = v(text)
        if not self.minimum <= version <= self.maximum:
            raise errors.NotAcceptable(
                f"Version {text} is not supported by the API. Minimum is {self.minimum} and maximum is {self.maximum}."
            )
        return version

    def _header_value(self) -> str | None:
        header: str = request.environ.get("HTTP_OPENSTACK_API_VERSION", "")
        for part in header.split(","):
            word, _, number = part.strip().partition(" ")
            if word.lower() in (self.service, *self.aliases) and number:
                return number.strip()
        if self.legacy_header:
            return request.headers.get(self.legacy_header) or None
        return None

    def add_headers(self, response: Response) -> None:
        """Add the negotiated version to a response."""
        version = str(g.version)
        add = response.headers.add
        add("OpenStack-API-Version", f"{self.service} {version}")
        vary = "OpenStack-API-Version"
        if self.legacy_header:
            add(self.legacy_header, version)
            vary = f"{vary}, {self.legacy_header}"
        response.headers["Vary"] = vary


COMPUTE = Microversions("compute", v("2.1"), v("2.96"), legacy_header="X-OpenStack-Nova-API-Version", aliases=("nova",))
VOLUME = Microversions("volume", v("3.0"), v("3.0"))
