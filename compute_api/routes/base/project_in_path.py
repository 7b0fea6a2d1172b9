"""Older paths: /compute/v2.1/{project_id}/servers and /compute/v2/servers are /compute/v2.1/servers.

A project's id is taken out of the path before anything is routed, and must be that of the token's project. v2 is v2.1
without microversions.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from flask import request

from app.core import errors
from app.web.context import caller

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

PROJECT = "sixstack.project_in_path"
_PATH = re.compile(r"/compute/v2\.1/([0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?=/|$)")


def strip_project(application: Wsgi) -> Wsgi:
    """The application, which no longer sees the project in the path."""

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path: str = environ.get("PATH_INFO", "")
        if path.startswith("/compute/v2/") and len(path) > len("/compute/v2/"):
            path = environ["PATH_INFO"] = f"/compute/v2.1{path[len('/compute/v2') :]}"
            for header in ("HTTP_OPENSTACK_API_VERSION", "HTTP_X_OPENSTACK_NOVA_API_VERSION"):
                environ.pop(header, None)
        if path.startswith("/compute/v2.1/") and (found := _PATH.match(path)):
            environ[PROJECT] = found[1]
            environ["PATH_INFO"] = f"/compute/v2.1{path[found.end() :]}"
        return application(environ, start_response)

    return call


def check_path() -> None:
    """Before each request: a project in the path is the caller's own, and no id is left out at the path's end.

    Raises BadRequest in Nova's words, NotFound.
    """
    if request.path.endswith("/"):
        raise errors.NotFound("The resource could not be found.")
    asked = request.environ.get(PROJECT)
    if asked is not None and asked != caller().project_id:
        raise errors.BadRequest(
            f"Malformed request URL: URL's project_id '{asked}' doesn't match Context's project_id "
            f"'{caller().project_id}'"
        )
