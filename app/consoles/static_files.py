"""Static files of noVNC, which scripts/setup.sh installs under the Python prefix."""

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
    """Return the directory of noVNC; None when it is not installed."""
    return next((place for place in PLACES if (place / PAGE).is_file()), None)


def page(root: Path | None, path: str) -> Response:
    """Return the file at a URL path, or 404. Rejects paths that leave `root`; follows symbolic links in it."""
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


def plain(status: HTTPStatus, text: str) -> Response:
    """Build a plain-text response, without a body for an empty text."""
    return _response(status, f"{text}\n".encode() if text else b"", "text/plain; charset=utf-8")


def _response(status: HTTPStatus, body: bytes, kind: str) -> Response:
    headers = Headers(
        [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            # The page's URL contains a token, which must not leak to other sites.
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "frame-ancestors *; object-src 'none'"),
        ]
    )
    return Response(status.value, status.phrase, headers, body)
