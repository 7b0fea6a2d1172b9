"""Request ids: generated for each request, returned in X-Openstack-Request-Id and added to each log line.

A client's X-Openstack-Request-Id is the global request id, which identifies a request across services. As in OpenStack
it is logged with the request id and not returned.
"""

import re
from uuid import uuid4

from flask import Flask, Response, g, request

from app.core import log_context
from app.core.log_context import LogContext
from app.web.services import Service, service_of

GLOBAL = re.compile(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Valid global request ids; others are ignored, so that clients cannot inject text into logs."""


def install(app: Flask) -> None:
    """Assign an id to each request before any other hook, and add the common headers to each response."""

    def begin() -> None:
        g.request_id = f"req-{uuid4()}"
        sent = request.environ.get("HTTP_X_OPENSTACK_REQUEST_ID", "")
        global_request_id = sent if sent and GLOBAL.fullmatch(sent) else ""
        log_context.begin(LogContext(request_id=g.request_id, global_request_id=global_request_id))

    def end(response: Response) -> Response:
        number = g.get("request_id") or f"req-{uuid4()}"
        add = response.headers.add
        add("X-Openstack-Request-Id", number)
        if service_of(request.path) is Service.COMPUTE:
            add("X-Compute-Request-Id", number)
        if (microversions := g.get("microversions")) is not None:
            microversions.add_headers(response)
        elif "Vary" not in response.headers:
            response.headers["Vary"] = "X-Auth-Token"
        return response

    app.before_request(begin)
    app.after_request(end)
