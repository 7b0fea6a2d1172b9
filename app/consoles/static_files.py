"""noVNC's files, as setup has put them beside this installation's Python, served to browsers over plain HTTP."""

import mimetypes
import sys
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote

from websockets.datastructures import Headers
from websockets.http11 import Response

PLACES = (Path(sys.prefix) / "share/novnc", Path("/usr/share/novnc"))
PAGE = "vnc_lite.html"
TYPES = {".js": "text/javascript", ".html": "text/html; charset=utf-8", ".json": "application/json"}


def directory() -> Path | None:
    """Where noVNC is; None when it is not installed."""
    return next((place for place in PLACES if (place / PAGE).is_file()), None)


def page(root: Path | None, path: str) -> Response:
    """The file at a URL's path, or 404; never one outside of `root`, links that a package made excepted."""
    if root is None:
        return plain(HTTPStatus.NOT_FOUND, "noVNC is not installed here.")
    parts = unquote(path).strip("/").split("/")
    if any(part in ("", ".", "..") or "\0" in part or part.startswith(".") for part in parts):
        return plain(HTTPStatus.NOT_FOUND, "There is no such page.")
    file = root.joinpath(*parts)
    try:
        body = file.read_bytes()
    except (OSError, ValueError):
        return plain(HTTPStatus.NOT_FOUND, "There is no such page.")
    kind = TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return _response(HTTPStatus.OK, body, kind)


def plain(status: HTTPStatus, words: str) -> Response:
    """An answer in words, or without any."""
    return _response(status, f"{words}\n".encode() if words else b"", "text/plain; charset=utf-8")


def _response(status: HTTPStatus, body: bytes, kind: str) -> Response:
    headers = Headers(
        [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            # The page's address has a token in it, which is nobody else's business.
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "frame-ancestors *; object-src 'none'"),
        ]
    )
    return Response(status.value, status.phrase, headers, body)
