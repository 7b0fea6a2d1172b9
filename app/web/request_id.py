"""Every answer says which request it answers: X-Openstack-Request-Id, the name operators search logs for."""

from uuid import uuid4

from flask import Flask, Response, g, request

from app.web.services import Service, service_of


def install(app: Flask) -> None:
    """Give each request an id before anything else, and put all common headers on each answer."""

    def begin() -> None:
        g.request_id = f"req-{uuid4()}"

    def end(response: Response) -> Response:
        number = g.get("request_id") or f"req-{uuid4()}"
        add = response.headers.add
        add("X-Openstack-Request-Id", number)
        if service_of(request.path) is Service.COMPUTE:
            add("X-Compute-Request-Id", number)
        if (microversions := g.get("microversions")) is not None:
            microversions.mark(response)
        elif "Vary" not in response.headers:
            response.headers["Vary"] = "X-Auth-Token"
        return response

    app.before_request(begin)
    app.after_request(end)
