"""WSGI middleware for older paths: maps /compute/v2.1/{project_id}/… and /compute/v2/… to /compute/v2.1/….

The project id is removed from the path before routing and must match the token's project. v2 is v2.1 without
microversions.
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
    """Wrap the application and remove the project from the path of each request."""

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path: str = environ.get("PATH_INFO", "")
        if path.startswith("/compute/v2/") and len(path) > len("/compute/v2/"):
            path = environ["PATH_INFO"] = f"/compute/v2.1{path[len('/compute/v2') :]}"
            for header in ("HTTP_OPENSTACK_API_VERSION", "HTTP_X_OPENSTACK_NOVA_API_VERSION"):
                environ.pop(header, None)
        if path.startswith("/compute/v2.1/") and (match := _PATH.match(path)):
            environ[PROJECT] = match[1]
            environ["PATH_INFO"] = f"/compute/v2.1{path[match.end() :]}"
        return application(environ, start_response)

    return call


def check_path() -> None:
    """Raise BadRequest when the project in the path is not the caller's, NotFound when the path ends with a slash."""
    if request.path.endswith("/"):
        raise errors.NotFound("The resource could not be found.")
    project_id = request.environ.get(PROJECT)
    if project_id is not None and project_id != caller().project_id:
        raise errors.BadRequest(
            f"Malformed request URL: URL's project_id '{project_id}' doesn't match Context's project_id "
            f"'{caller().project_id}'"
        )
