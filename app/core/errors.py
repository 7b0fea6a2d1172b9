"""What can go wrong, by meaning. `app.web.faults` gives each a status and the service's own body.

The message goes to the user as it is; what only helps us goes to the log.
"""

from collections.abc import Mapping


class SixstackError(Exception):
    """A refusal with a reason. `headers` are added to the answer."""

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = dict(headers or {})


class BadRequest(SixstackError):
    """The request cannot be understood or contradicts itself."""


class Unauthorized(SixstackError):
    """Nobody, or somebody whose proof does not hold."""


class Forbidden(SixstackError):
    """Known, but not allowed."""


class QuotaExceeded(Forbidden):
    """Allowed, but the project has used up what it may use. Clients match on "Quota exceeded"."""


class NotFound(SixstackError):
    """There is no such thing, or it is somebody else's."""


class MethodNotAllowed(SixstackError):
    """The thing exists and does not do that."""


class NotAcceptable(SixstackError):
    """No version of the answer that the client would accept."""


class Conflict(SixstackError):
    """Not in this state, or the name is taken."""


class PreconditionFailed(SixstackError):
    """The resource is not in the state that the request's If-Match names."""


class Gone(SixstackError):
    """It was here once; OpenStack has removed it."""


class TooLarge(SixstackError):
    """More bytes or more items than allowed."""


class UnsupportedMedia(SixstackError):
    """A body of a kind that is not read here."""


class RangeNotSatisfiable(SixstackError):
    """The asked range lies outside the file."""


class TooManyRequests(SixstackError):
    """Come back later; `headers` may carry Retry-After."""


class NotSupported(SixstackError):
    """OpenStack can do it, this cloud does not."""


class Unavailable(SixstackError):
    """It should work and does not just now."""


class OperatorError(Exception):
    """Something the person at the command line must change; printed as one line, exit status 1."""
