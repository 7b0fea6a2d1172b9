"""Request ids: one for each request, in X-Openstack-Request-Id of its answer and in each line of the log.

A client's own X-Openstack-Request-Id is the global request id, which follows a request through several services. As in
OpenStack it is logged beside the request's own id and not returned.
"""

import re
from uuid import uuid4

from flask import Flask, Response, g, request

from app.core import log_context
from app.core.log_context import LogContext
from app.web.services import Service, service_of

GLOBAL = re.compile(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What clients may send, so that they cannot write anything else into logs."""


def install(app: Flask) -> None:
    """Give each request an id before anything else, and put all common headers on each answer."""

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
