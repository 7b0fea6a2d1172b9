"""Baseline of API benchmarks: a Flask application that returns constant bytes, on the server of the cloud."""

import sys

from flask import Flask, Response
from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

BODY = b'{"hello": "' + b"x" * 1000 + b'"}'


def make_app() -> Flask:
    """Create the application, with one route for all methods."""
    app = Flask("baseline", static_folder=None)

    @app.route("/bytes", methods=["GET", "POST", "DELETE"])
    def answer() -> Response:
        return Response(BODY, content_type="application/json")

    return app


def main() -> None:
    """Serve on the port of the command line until SIGTERM, with the cloud's default workers and threads."""
    Granian(
        "benchmarks.baseline:make_app",
        factory=True,
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.WSGI,
        workers=1,
        blocking_threads=8,
        log_level=LogLevels.warning,
        websockets=False,
    ).serve()


if __name__ == "__main__":
    main()
