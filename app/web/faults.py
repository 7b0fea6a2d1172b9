"""Maps errors to an HTTP status and the fault body of the requested service.

Identity: {"error": {code, title, message}}. Compute and block storage: {"itemNotFound": {code, message}}. Network:
{"NeutronError": {type, message, detail}}. Image: {code, title, message}, which its clients accept as well as Glance's
HTML page.
"""

import logging
from collections.abc import Callable, Mapping
from html import escape
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, g, request
from sqlalchemy.exc import DataError, DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from app.core import errors
from app.db.database import is_unreachable
from app.web.links import url
from app.web.services import Service, service_of

log = logging.getLogger(__name__)

STATUS: dict[type[errors.SixstackError], HTTPStatus] = {
    errors.BadRequest: HTTPStatus.BAD_REQUEST,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.QuotaExceeded: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    errors.Gone: HTTPStatus.GONE,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedMedia: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.RangeNotSatisfiable: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.NotSupported: HTTPStatus.NOT_IMPLEMENTED,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

SERVICE_STATUS: dict[tuple[Service, type[errors.SixstackError]], HTTPStatus] = {
    (Service.IMAGE, errors.QuotaExceeded): HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    (Service.VOLUME, errors.QuotaExceeded): HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    (Service.NETWORK, errors.QuotaExceeded): HTTPStatus.CONFLICT,
}
"""Statuses of single services that differ from STATUS."""

COMPUTE_NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}

NEUTRON_TYPES = {
    400: "HTTPBadRequest",
    401: "HTTPUnauthorized",
    403: "PolicyNotAuthorized",
    404: "HTTPNotFound",
    405: "HTTPMethodNotAllowed",
    409: "Conflict",
    501: "HTTPNotImplemented",
    503: "HTTPServiceUnavailable",
}

INTERNAL = "An unexpected error prevented the server from fulfilling your request. Report it with the request id {id}."
UNREACHABLE = "The service is temporarily unavailable. Try again."
UNSTORABLE = "The request contains a value that the database cannot store or compare."


def fault(service: Service | None, status: int, message: str, kind: str | None = None) -> Response:
    """Build the fault response; `kind` is Neutron's exception name where there is one."""
    if service is Service.IMAGE and "python-glanceclient" in request.headers.get("User-Agent", ""):
        return _html_page(status, message)
    body = BODIES[service](status, message, kind)
    return Response(orjson.dumps(body), status=status, content_type="application/json")


def _html_page(status: int, message: str) -> Response:
    """Build the HTML page of Glance; glanceclient cannot parse a JSON fault that is not nested."""
    title = f"{status} {_title(status)}"
    text = escape(message, quote=False).replace("\n", "<br />\n")
    page = f"<html>\n<head>\n<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n{text}\n</body>\n</html>"
    return Response(page, status=status, content_type="text/html; charset=UTF-8")


def _identity_body(status: int, message: str, _kind: str | None) -> Mapping[str, Any]:
    return {"error": {"code": status, "title": _title(status), "message": message}}


def _image_body(status: int, message: str, _kind: str | None) -> Mapping[str, Any]:
    return {"code": f"{status} {_title(status)}", "title": _title(status), "message": message}


def _compute_body(status: int, message: str, _kind: str | None) -> Mapping[str, Any]:
    body: dict[str, Any] = {"code": status, "message": message}
    if status in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.TOO_MANY_REQUESTS):
        body["retryAfter"] = "0"
    return {COMPUTE_NAMES.get(status, "computeFault"): body}


def _network_body(status: int, message: str, kind: str | None) -> Mapping[str, Any]:
    kind = kind or NEUTRON_TYPES.get(status, _title(status))
    return {"NeutronError": {"type": kind, "message": message, "detail": ""}}


BODIES: dict[Service | None, Callable[[int, str, str | None], Mapping[str, Any]]] = {
    None: _identity_body,
    Service.IDENTITY: _identity_body,
    Service.IMAGE: _image_body,
    Service.COMPUTE: _compute_body,
    Service.VOLUME: _compute_body,
    Service.NETWORK: _network_body,
}


def install(app: Flask) -> None:
    """Register handlers that turn each exception of a route into a fault; unexpected ones are logged and give a 500."""
    app.register_error_handler(errors.SixstackError, _handle_sixstack_error)
    app.register_error_handler(HTTPException, _handle_http_exception)
    app.register_error_handler(DBAPIError, _handle_database_error)
    app.register_error_handler(PoolTimeout, _handle_database_error)
    app.register_error_handler(DataError, _handle_data_error)
    app.register_error_handler(OverflowError, _handle_out_of_range)
    app.register_error_handler(RecursionError, _handle_out_of_range)
    app.register_error_handler(ValueError, _handle_value_error)
    app.register_error_handler(StatementError, _handle_statement_error)
    app.register_error_handler(Exception, _handle_unexpected)


def _handle_sixstack_error(error: errors.SixstackError) -> Response:
    service = service_of(request.path)
    status = next(
        found
        for kind in type(error).__mro__
        if (found := SERVICE_STATUS.get((service, kind)) if service else None) or (found := STATUS.get(kind))
    )
    response = fault(service, status, error.message, getattr(error, "kind", None))
    response.headers.update(error.headers)
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = f'Keystone uri="{url("/identity/v3")}"'
    return response


def _handle_http_exception(error: HTTPException) -> BaseResponse:
    """Handle errors raised by Flask: no matching route, unsupported method, invalid body."""
    service = service_of(request.path)
    if error.code is None or error.response is not None:
        return error.get_response()
    id_is_empty = error.code == HTTPStatus.METHOD_NOT_ALLOWED and request.path.endswith("/")
    code = HTTPStatus.NOT_FOUND if id_is_empty else error.code
    message = "The resource could not be found." if code == HTTPStatus.NOT_FOUND else error.description or ""
    response = fault(service, code, message)
    if id_is_empty:
        return response
    for name, value in error.get_headers():
        if name.lower() in ("allow", "retry-after"):
            response.headers[name] = value
    return response


def _handle_data_error(error: DataError) -> Response:
    """Handle values that the database rejects, such as a NUL in a text on PostgreSQL or a number out of range."""
    log.info("%s %s: value rejected by the database: %s", request.method, request.path, error.orig)
    return fault(service_of(request.path), HTTPStatus.BAD_REQUEST, UNSTORABLE)


def _handle_database_error(error: Exception) -> Response:
    """Handle an unreachable database or a timeout of its write lock with a 503; the client may retry."""
    if not is_unreachable(error):
        return _handle_unexpected(error)
    log.warning("%s %s: the database cannot be reached: %s", request.method, request.path, error)
    return _handle_sixstack_error(errors.Unavailable(UNREACHABLE, headers={"Retry-After": "1"}))


def _handle_out_of_range(error: Exception) -> Response:
    """Handle numbers and times out of the range of SQLite or datetime, and values nested too deeply."""
    log.info("%s %s: value out of range: %s", request.method, request.path, error)
    return fault(service_of(request.path), HTTPStatus.BAD_REQUEST, UNSTORABLE)


def _handle_value_error(error: ValueError) -> Response:
    """Handle Python's limit on the digits of integers (4,300); other ValueErrors are unexpected."""
    return _handle_out_of_range(error) if "Exceeds the limit" in str(error) else _handle_unexpected(error)


def _handle_statement_error(error: StatementError) -> Response:
    """Handle an OverflowError that SQLAlchemy wrapped while binding parameters."""
    return _handle_out_of_range(error.orig) if isinstance(error.orig, OverflowError) else _handle_unexpected(error)


def _handle_unexpected(error: Exception) -> Response:
    if is_unreachable(error):  # a driver error from a pinned connection
        return _handle_database_error(error)
    log.exception("%s %s failed", request.method, request.path, exc_info=error)
    message = INTERNAL.format(id=g.get("request_id", "unknown"))
    return fault(service_of(request.path), HTTPStatus.INTERNAL_SERVER_ERROR, message)


def _title(status: int) -> str:
    return HTTPStatus(status).phrase
