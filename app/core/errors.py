"""Exceptions by meaning. `app.web.faults` maps each to an HTTP status and the fault body of the service.

Messages are returned to users unchanged; details for operators belong in the log.
"""

from collections.abc import Mapping


class SixstackError(Exception):
    """Base of all errors that are returned to users. `headers` are added to the response."""

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = dict(headers or {})


class BadRequest(SixstackError):
    """The request is malformed or contradicts itself."""


class Unauthorized(SixstackError):
    """Authentication is missing or failed."""


class Forbidden(SixstackError):
    """The caller is authenticated but not authorized."""


class QuotaExceeded(Forbidden):
    """The project's quota is used up. Clients match on "Quota exceeded"."""


class NotFound(SixstackError):
    """The resource does not exist or is not visible to the caller."""


class MethodNotAllowed(SixstackError):
    """The resource does not support the method."""


class NotAcceptable(SixstackError):
    """The requested microversion or representation is not supported."""


class Conflict(SixstackError):
    """The operation conflicts with the resource's current state, or the name is taken."""


class PreconditionFailed(SixstackError):
    """The resource is not in the state that the request's If-Match names."""


class Gone(SixstackError):
    """The API was removed by OpenStack."""


class TooLarge(SixstackError):
    """The request has more bytes or items than allowed."""


class UnsupportedMedia(SixstackError):
    """The media type of the request body is not supported."""


class RangeNotSatisfiable(SixstackError):
    """The requested range lies outside the file."""


class TooManyRequests(SixstackError):
    """The caller is rate-limited; `headers` may carry Retry-After."""


class NotSupported(SixstackError):
    """A feature of OpenStack that this cloud does not implement."""


class Unavailable(SixstackError):
    """A temporary failure; a retry may succeed."""


class OperatorError(Exception):
    """A problem that the operator must fix; printed as one line, exit status 1."""
